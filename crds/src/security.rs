//! The plaintext rule: which transport may be spoken to an address, decided before any connection is made.

use std::net::IpAddr;

use crate::service::Transport;
use crate::zone::{Encryption, Location, NetworkZoneSpec};

/// What holds at one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where it is.
    pub location: Location,
    /// Whether plaintext is accepted there.
    pub encryption: Encryption,
    /// What is spoken there unless a service says.
    pub transport: Transport,
}

/// What each location speaks unless a zone or a service says otherwise.
fn default_transport(location: Location) -> Transport {
    match location {
        Location::Localhost | Location::Vpn => Transport::Http,
        Location::LocalNetwork | Location::Remote => Transport::Https,
    }
}

/// What holds at `address`: the zone with the longest matching prefix decides; what no zone knows is remote.
///
/// Loopback addresses are localhost whatever the zones say. Of two zones with the same prefix length the stricter
/// decides.
pub fn place<'a>(address: IpAddr, zones: impl Iterator<Item = &'a NetworkZoneSpec>) -> Place {
    let described = |location, encryption, transport: Option<Transport>| Place {
        location,
        encryption,
        transport: transport.unwrap_or(default_transport(location)),
    };
    if address.to_canonical().is_loopback() {
        return described(Location::Localhost, Encryption::Required, None);
    }
    match deciding(address, zones.map(|zone| ((), zone))) {
        Some(((), zone)) => described(zone.location, zone.encryption, zone.transport),
        None => described(Location::Remote, Encryption::Required, None),
    }
}

/// The zone that decides at `address`, by the same rule; none for what no zone knows, and for loopback addresses.
pub fn zone_of<'a, Name: Copy>(
    address: IpAddr,
    zones: impl Iterator<Item = (Name, &'a NetworkZoneSpec)>,
) -> Option<Name> {
    if address.to_canonical().is_loopback() {
        return None;
    }
    deciding(address, zones).map(|(name, _)| name)
}

fn deciding<'a, Name: Copy>(
    address: IpAddr,
    zones: impl Iterator<Item = (Name, &'a NetworkZoneSpec)>,
) -> Option<(Name, &'a NetworkZoneSpec)> {
    let matches = zones.flat_map(|(name, zone)| {
        let inside = zone.cidrs.iter().filter(move |cidr| cidr.contains(address));
        inside.map(move |cidr| (cidr.prefix(), name, zone))
    });
    let strictness = |zone: &NetworkZoneSpec| (zone.encryption == Encryption::Required, zone.location);
    let longest = matches.max_by_key(|(prefix, _, zone)| (*prefix, strictness(zone)));
    longest.map(|(_, name, zone)| (name, zone))
}

/// Why a transport may not be spoken to a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportRefusal {
    /// Plaintext where others could read it.
    #[error(
        "{transport} is plaintext, and {address} is {location}; use https, or declare a NetworkZone with `encryption: optional` for a network that you trust"
    )]
    Plaintext {
        /// What was asked for.
        transport: Transport,
        /// To which address.
        address: IpAddr,
        /// Where that is.
        location: Location,
    },
    /// The host's name has no address, so nothing is known about where it is.
    #[error("its name has no address, so it cannot be told whether {transport} is safe there")]
    NoAddress {
        /// What was asked for.
        transport: Transport,
    },
}

/// What is spoken to a host with these addresses unless a service says: of several addresses' defaults an encrypted
/// one decides. Nothing is known of a host without an address.
pub fn default_at<'a>(
    addresses: &[IpAddr],
    zones: &(impl Iterator<Item = &'a NetworkZoneSpec> + Clone),
) -> Option<Transport> {
    let mut defaults = addresses.iter().map(|address| place(*address, zones.clone()).transport);
    let first = defaults.next()?;
    if first.is_plaintext() { defaults.find(|other| !other.is_plaintext()).or(Some(first)) } else { Some(first) }
}

/// Which transport a service speaks on a host with these addresses, or why none: every address must qualify.
///
/// # Errors
/// When an address is at a place where `asked`, or the default there, is not allowed.
pub fn transport<'a>(
    asked: Option<Transport>,
    addresses: &[IpAddr],
    zones: &(impl Iterator<Item = &'a NetworkZoneSpec> + Clone),
) -> Result<Transport, TransportRefusal> {
    let Some(default) = default_at(addresses, zones) else {
        return Err(TransportRefusal::NoAddress { transport: asked.unwrap_or(Transport::Https) });
    };
    let chosen = asked.unwrap_or(default);
    if !chosen.is_plaintext() {
        return Ok(chosen);
    }
    for address in addresses {
        let place = place(*address, zones.clone());
        let allowed = match place.location {
            Location::Localhost | Location::Vpn => true,
            Location::LocalNetwork => place.encryption == Encryption::Optional,
            Location::Remote => false,
        };
        if !allowed {
            return Err(TransportRefusal::Plaintext { transport: chosen, address: *address, location: place.location });
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(location: Location, cidr: &str, encryption: Encryption) -> NetworkZoneSpec {
        NetworkZoneSpec { location, cidrs: vec![cidr.parse().expect(cidr)], encryption, transport: None }
    }

    /// `expected` is the transport, or where it was refused.
    fn check(asked: Option<Transport>, addresses: &[&str], expected: Result<Transport, Location>) {
        let zones = [
            zone(Location::LocalNetwork, "10.0.0.0/8", Encryption::Required),
            zone(Location::LocalNetwork, "10.1.0.0/16", Encryption::Optional),
            zone(Location::Remote, "10.1.9.0/24", Encryption::Required),
            zone(Location::Vpn, "100.64.0.0/10", Encryption::Required),
            zone(Location::LocalNetwork, "10.2.0.0/16", Encryption::Optional),
            zone(Location::LocalNetwork, "10.2.0.0/16", Encryption::Required),
        ];
        let parsed: Vec<IpAddr> = addresses.iter().map(|address| address.parse().expect(address)).collect();
        let answer = transport(asked, &parsed, &zones.iter()).map_err(|refusal| match refusal {
            TransportRefusal::Plaintext { location, .. } => location,
            other @ TransportRefusal::NoAddress { .. } => panic!("{addresses:?}: {other}"),
        });
        assert_eq!(answer, expected, "{asked:?} to {addresses:?}");
    }

    #[test]
    fn plaintext_needs_a_place_that_allows_it() {
        use Transport::{Http, Https, Tcp};
        check(Some(Http), &["127.0.0.1"], Ok(Http));
        check(Some(Http), &["::1"], Ok(Http));
        check(None, &["127.0.0.1"], Ok(Http));
        check(Some(Http), &["8.8.8.8"], Err(Location::Remote));
        check(Some(Tcp), &["8.8.8.8"], Err(Location::Remote));
        check(Some(Https), &["8.8.8.8"], Ok(Https));
        check(None, &["8.8.8.8"], Ok(Https));
        check(Some(Http), &["10.9.9.9"], Err(Location::LocalNetwork));
        check(Some(Http), &["10.1.1.1"], Ok(Http));
        check(None, &["10.1.1.1"], Ok(Https));
        // The longest prefix wins, also where it is the stricter one.
        check(Some(Http), &["10.1.9.1"], Err(Location::Remote));
        check(Some(Http), &["100.64.0.1"], Ok(Http));
        check(None, &["100.64.0.1"], Ok(Http));
        // Of two zones with one range the stricter decides, whichever comes first.
        check(Some(Http), &["10.2.0.1"], Err(Location::LocalNetwork));
        // Every address must qualify.
        check(Some(Http), &["10.1.1.1", "8.8.8.8"], Err(Location::Remote));
        check(None, &["127.0.0.1", "8.8.8.8"], Ok(Https));
        check(Some(Http), &["::ffff:10.1.1.1"], Ok(Http));
    }

    #[test]
    fn the_longest_prefix_says_which_zone_it_is() {
        let zones = [
            zone(Location::LocalNetwork, "10.0.0.0/8", Encryption::Required),
            zone(Location::LocalNetwork, "10.1.0.0/16", Encryption::Optional),
            zone(Location::LocalNetwork, "127.0.0.0/8", Encryption::Optional),
        ];
        for (address, expected) in
            [("10.9.9.9", Some(0)), ("10.1.1.1", Some(1)), ("8.8.8.8", None), ("127.0.0.1", None)]
        {
            let found = zone_of(address.parse().expect(address), zones.iter().enumerate());
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn a_name_without_addresses_qualifies_for_nothing() {
        let refusal = transport(Some(Transport::Http), &[], &std::iter::empty());
        assert_eq!(refusal, Err(TransportRefusal::NoAddress { transport: Transport::Http }));
    }
}
