//! The store's own authority: it signs the certificates by which the store and those who use it know each other.
//!
//! All of it lies in one folder for its owner only. Who may read that may do everything, so no key in it has a
//! password.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::place::write_whole;
use crate::serve::{Peer, PeerName, Rights};
use crate::tls::Tls;

/// How long the authority's certificate holds. It is made anew with the same key a year before it ends, so what it has
/// signed stays good.
const AUTHORITY_DAYS: i64 = 3650;
const AUTHORITY_LEFT: Duration = Duration::from_secs(365 * 86_400);

/// How long our own certificates hold, and how much of that is left when they are made anew: time enough for a machine
/// that was switched off for a month.
const OWN_DAYS: i64 = 90;
const OWN_LEFT: Duration = Duration::from_secs(30 * 86_400);

/// How long a certificate holds that is given away: nobody renews it but by hand.
const GIVEN_DAYS: i64 = 365;

/// Begins the line that says until when the authority is good.
const UNTIL: &str = "windlass store authority, good until ";

/// Clocks of other machines may be behind ours.
const EARLIER: SignedDuration = SignedDuration::from_hours(24);

/// Why certificates cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A key is there that is none.
    #[error("{} holds no key in PEM form\nhint: with a backup of that file the certificates that were given away stay good; without one, delete the folder, and give new ones away", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
    },
    /// A certificate cannot be made.
    #[error("cannot make the certificate of {name}")]
    Making {
        /// Of whom.
        name: String,
        /// Why.
        #[source]
        error: rcgen::Error,
    },
    /// Where it should go something is already.
    #[error("{} is there already\nhint: --out takes another folder", .0.display())]
    Exists(PathBuf),
}

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl Pair {
    fn of(folder: &Path, name: &str) -> Self {
        Self { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}-key.pem")) }
    }
}

/// Who signs.
pub(super) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Reads the authority of a folder, or makes it.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub(super) fn open(folder: &Path, now: Timestamp) -> Result<Self, AuthorityError> {
        let unusable = |error| AuthorityError::File { path: folder.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let Pair { certificate: path, key: key_path } = Pair::of(folder, "ca");
        let key = match read(&key_path)? {
            Some(text) => KeyPair::from_pem(&text).map_err(|_| AuthorityError::Key { path: key_path })?,
            None => {
                let key = KeyPair::generate().map_err(|error| making("the authority", error))?;
                write(&key_path, &key.serialize_pem())?;
                key
            }
        };
        let params = authority_params(now);
        let known = read(&path)?.filter(|text| authority_lasts(text, now));
        let known = known.and_then(|text| CertificateDer::from_pem_slice(text.as_bytes()).ok());
        let certificate = match known.filter(|known| is_of(known, &key)) {
            Some(known) => known,
            None => {
                let made = params.self_signed(&key).map_err(|error| making("the authority", error))?;
                write(&path, &with_end(&made.pem(), now))?;
                made.der().clone()
            }
        };
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key), certificate })
    }

    /// The authority's certificate.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Where it is.
    pub(super) fn certificate_file(&self) -> PathBuf {
        Pair::of(&self.folder, "ca").certificate
    }

    /// The store's own certificate, for these names and addresses; made anew before it ends.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub(super) fn server(&self, names: &[String], now: Timestamp) -> Result<Pair, AuthorityError> {
        let pair = Pair::of(&self.folder, "server");
        let covers = |certificate: &CertificateDer<'_>| names.iter().all(|name| is_for(certificate, name));
        if !self.holds(&pair, now, covers)? {
            let mut params = CertificateParams::new(names).map_err(|error| making("the store", error))?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            self.sign(params, "the store", OWN_DAYS, &pair, now)?;
        }
        Ok(pair)
    }

    /// The certificate of somebody on this machine; made anew before it ends.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub(super) fn own(&self, peer: &Peer, now: Timestamp) -> Result<Pair, AuthorityError> {
        let pair = Pair::of(&self.folder, peer.name.as_str());
        let is_theirs = |certificate: &CertificateDer<'_>| Peer::of(certificate).as_ref() == Some(peer);
        if !self.holds(&pair, now, is_theirs)? {
            self.sign(client_params(peer)?, peer.name.as_str(), OWN_DAYS, &pair, now)?;
        }
        Ok(pair)
    }

    /// A certificate to give away, in a folder where there is none of that name.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub(super) fn give(&self, name: &PeerName, out: &Path, now: Timestamp) -> Result<Tls, AuthorityError> {
        let pair = Pair::of(out, name.as_str());
        let authority = out.join("windlass-ca.pem");
        if let Some(there) = [&pair.certificate, &pair.key].into_iter().find(|path| path.exists()) {
            return Err(AuthorityError::Exists(there.clone()));
        }
        let text = read(&self.certificate_file())?.unwrap_or_default();
        if read(&authority)?.is_some_and(|other| other != text) {
            // Of another store, whose certificates may lie beside it.
            return Err(AuthorityError::Exists(authority));
        }
        let unusable = |error| AuthorityError::File { path: out.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(out).map_err(unusable)?;
        let peer = Peer { name: name.clone(), rights: Rights::Declare };
        self.sign(client_params(&peer)?, name.as_str(), GIVEN_DAYS, &pair, now)?;
        write(&authority, &text)?;
        Ok(Tls { ca_file: authority, cert_file: Some(pair.certificate), key_file: Some(pair.key) })
    }

    /// Whether a pair is there, signed by us, and good for long enough.
    fn holds(
        &self,
        pair: &Pair,
        now: Timestamp,
        fits: impl Fn(&CertificateDer<'_>) -> bool,
    ) -> Result<bool, AuthorityError> {
        let (Some(certificate), Some(key)) = (read(&pair.certificate)?, read(&pair.key)?) else { return Ok(false) };
        let Ok(certificate) = CertificateDer::from_pem_slice(certificate.as_bytes()) else { return Ok(false) };
        let Ok(key) = KeyPair::from_pem(&key) else { return Ok(false) };
        Ok(is_of(&certificate, &key) && is_good(&certificate, &self.certificate, now, OWN_LEFT) && fits(&certificate))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        name: &str,
        days: i64,
        pair: &Pair,
        now: Timestamp,
    ) -> Result<(), AuthorityError> {
        params.distinguished_name = named(&format!("windlass {name}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        last_until(&mut params, now, days);
        let key = KeyPair::generate().map_err(|error| making(name, error))?;
        let made = params.signed_by(&key, &self.issuer).map_err(|error| making(name, error))?;
        write(&pair.key, &key.serialize_pem())?;
        write(&pair.certificate, &made.pem())
    }
}

fn authority_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("windlass store authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    last_until(&mut params, now, AUTHORITY_DAYS);
    params
}

fn client_params(peer: &Peer) -> Result<CertificateParams, AuthorityError> {
    let name = peer.name.as_str();
    let mut params = CertificateParams::default();
    let uri = peer.uri().try_into().map_err(|error| making(name, error))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn making(name: &str, error: rcgen::Error) -> AuthorityError {
    AuthorityError::Making { name: name.to_owned(), error }
}

/// From a day ago for so many days, by whole days.
macro_rules! day {
    ($moment:expr) => {{
        let date = $moment.to_zoned(TimeZone::UTC).date();
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    }};
}

fn last_until(params: &mut CertificateParams, now: Timestamp, days: i64) {
    params.not_before = day!(now - EARLIER);
    params.not_after = day!(now + SignedDuration::from_hours(24 * days));
}

/// Whether a certificate is signed by an authority, and will be good for `left` from now on.
fn is_good(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>, now: Timestamp, left: Duration) -> bool {
    let (Ok(parsed), Ok(anchor)) = (EndEntityCert::try_from(certificate), anchor_from_trusted_cert(authority)) else {
        return false;
    };
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let at = |moment: Duration| {
        // What it is for is looked at where it is used.
        let time = UnixTime::since_unix_epoch(moment);
        let usages = [KeyUsage::client_auth(), KeyUsage::server_auth()];
        usages.into_iter().any(|usage| {
            let anchors = std::slice::from_ref(&anchor);
            parsed.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, anchors, &[], time, usage, None, None).is_ok()
        })
    };
    let now = Duration::from_secs(seconds);
    at(now) && at(now + left)
}

/// Whether a certificate is that of a key.
fn is_of(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    let ours = key.subject_public_key_info();
    EndEntityCert::try_from(certificate).is_ok_and(|parsed| *parsed.subject_public_key_info() == *ours)
}

/// Whether a certificate is for a name or an address.
fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let (Ok(parsed), Ok(name)) = (EndEntityCert::try_from(certificate), ServerName::try_from(name)) else {
        return false;
    };
    parsed.verify_is_valid_for_subject_name(&name).is_ok()
}

/// Says in the authority's file until when it is good: before its first line PEM allows any text.
fn with_end(pem: &str, now: Timestamp) -> String {
    let end = now + SignedDuration::from_hours(24 * AUTHORITY_DAYS);
    format!("{UNTIL}{}\n{pem}", end.strftime("%F"))
}

/// Whether the authority's certificate is good for long enough, by what its file says. One that says nothing was
/// brought by somebody, who knows.
fn authority_lasts(text: &str, now: Timestamp) -> bool {
    let end = text.lines().find_map(|line| line.strip_prefix(UNTIL)).and_then(|day| Date::from_str(day).ok());
    let end = end.and_then(|day| day.to_zoned(TimeZone::UTC).ok());
    end.is_none_or(|end| now + AUTHORITY_LEFT < end.timestamp())
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AuthorityError::File { path: path.to_owned(), error }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), AuthorityError> {
    write_whole(path, text).map_err(|error| AuthorityError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().expect("a moment")
    }

    fn ana() -> Peer {
        Peer { name: "ana".parse().expect("a name"), rights: Rights::All }
    }

    fn der(path: &Path) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(&std::fs::read(path).expect("a file")).expect("a certificate")
    }

    #[test]
    fn our_own_certificates_are_made_anew_a_month_before_they_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let at = |days: i32| {
            let now = now() + DAY * days;
            let authority = Authority::open(folder.path(), now).expect("an authority");
            let pairs = [authority.own(&ana(), now), authority.server(&names, now)].map(|pair| pair.expect("a pair"));
            assert!(pairs.iter().all(|pair| is_good(&der(&pair.certificate), &authority.certificate, now, OWN_LEFT)));
            (der(&authority.certificate_file()), pairs.map(|pair| der(&pair.certificate)))
        };
        let first = at(0);
        assert_eq!(at(0), first);
        assert_eq!(at(59), first, "there is a month left");
        let second = at(61);
        assert_eq!(second.0, first.0, "the authority stays");
        assert!(second.1[0] != first.1[0] && second.1[1] != first.1[1]);
    }

    #[test]
    fn an_authority_that_ends_keeps_its_key_and_what_it_signed_stays_good() {
        let folder = tempfile::tempdir().expect("a folder");
        let old = Authority::open(folder.path(), now()).expect("an authority");
        let later = now() + DAY * 3300;
        let given = folder.path().join("given");
        let tls = Authority::open(folder.path(), later - DAY * 100)
            .and_then(|authority| authority.give(&ana().name, &given, later - DAY * 100))
            .expect("a certificate");
        let new = Authority::open(folder.path(), later).expect("an authority");
        assert_ne!(old.certificate, new.certificate);
        let given = der(&tls.cert_file.expect("its file"));
        assert!(is_good(&given, &new.certificate, later, OWN_LEFT));
        assert!(is_good(&given, &old.certificate, later, OWN_LEFT), "and for those who know the old one");
        assert_eq!(Peer::of(&given), Some(Peer { rights: Rights::Declare, ..ana() }));
    }

    #[test]
    fn what_is_not_ours_or_does_not_fit_is_made_anew() {
        let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let authority = Authority::open(folder.path(), now()).expect("an authority");
        let stranger = Authority::open(elsewhere.path(), now()).expect("an authority");
        let pair = authority.own(&ana(), now()).expect("a pair");
        let first = der(&pair.certificate);
        let theirs = stranger.own(&ana(), now()).expect("a pair");
        assert!(!is_good(&der(&theirs.certificate), &authority.certificate, now(), Duration::ZERO));
        // Another's certificate, another's key, and somebody of the same name who may do less.
        for file in ["ana.pem", "ana-key.pem"] {
            std::fs::copy(elsewhere.path().join(file), folder.path().join(file)).expect("a copy");
            authority.own(&ana(), now()).expect("a pair");
            let made = der(&pair.certificate);
            assert!(made != first && is_good(&made, &authority.certificate, now(), OWN_LEFT), "{file}");
        }
        authority.own(&Peer { rights: Rights::Declare, ..ana() }, now()).expect("a pair");
        assert_eq!(Peer::of(&der(&pair.certificate)).map(|peer| peer.rights), Some(Rights::Declare));
        let server = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            der(&authority.server(&names, now()).expect("a pair").certificate)
        };
        let one = server(&["localhost"]);
        assert_eq!(server(&["localhost"]), one);
        let more = server(&["localhost", "192.0.2.7"]);
        assert_ne!(more, one, "another address");
        assert_eq!(server(&["192.0.2.7"]), more, "one name less is no reason");
    }

    #[test]
    fn an_authority_that_lost_its_key_is_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Authority::open(folder.path(), now()).expect("an authority");
        std::fs::remove_file(folder.path().join("ca-key.pem")).expect("it is there");
        let second = Authority::open(folder.path(), now()).expect("an authority");
        assert_ne!(first.certificate, second.certificate);
        let pair = second.own(&ana(), now()).expect("a pair");
        assert!(is_good(&der(&pair.certificate), &der(&second.certificate_file()), now(), OWN_LEFT));
    }

    #[test]
    fn a_key_that_is_none_is_named_and_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        Authority::open(folder.path(), now()).expect("an authority");
        let path = folder.path().join("ca-key.pem");
        std::fs::write(&path, "nonsense").expect("a file");
        let error = Authority::open(folder.path(), now()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("ca-key.pem holds no key in PEM form"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "nonsense");
    }
}
