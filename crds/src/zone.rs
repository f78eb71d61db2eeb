//! NetworkZone: which networks there are, and what may be spoken in them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::service::Transport;

/// Where an address is, as seen from whoever talks to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Location {
    /// The loopback interface.
    Localhost,
    /// A VPN, which encrypts by itself.
    Vpn,
    /// A network that others share.
    LocalNetwork,
    /// Anywhere else, and what nobody has declared.
    Remote,
}

impl fmt::Display for Location {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Localhost => "localhost",
            Self::Vpn => "vpn",
            Self::LocalNetwork => "localNetwork",
            Self::Remote => "remote",
        })
    }
}

/// Whether a zone demands encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Encryption {
    /// The default: plaintext is refused, but for localhost and VPNs.
    #[default]
    Required,
    /// Plaintext is accepted in this zone.
    Optional,
}

/// An address range in CIDR notation (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not an address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// No address, or no prefix length that fits it.
    #[error("{0:?} is not an address range such as 198.18.0.0/24 or fd00::/8")]
    Malformed(String),
    /// Bits beyond the prefix are set.
    #[error("{0:?} has bits set beyond its prefix; did you mean {1}?")]
    HostBits(String, Cidr),
}

/// The bits of an address, left-aligned in 128, and how many there are.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

/// The first `prefix` bits of `value`.
fn masked(value: u128, prefix: u8) -> u128 {
    if prefix == 0 { 0 } else { value & (u128::MAX << (128 - u32::from(prefix))) }
}

impl Cidr {
    /// How many bits are fixed: the longer, the more specific.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies in the range. IPv4 addresses mapped into IPv6 count as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, width) = bits(self.address);
        let (theirs, their_width) = bits(address.to_canonical());
        width == their_width && masked(theirs, self.prefix) == ours
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let wrong = || CidrError::Malformed(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let (value, width) = bits(address);
        if prefix > width {
            return Err(wrong());
        }
        let network = masked(value, prefix);
        if network != value {
            let address = match address {
                IpAddr::V4(_) => IpAddr::V4(u32::try_from(network >> 96).expect("32 bits are left").into()),
                IpAddr::V6(_) => IpAddr::V6(network.into()),
            };
            return Err(CidrError::HostBits(text.to_owned(), Self { address, prefix }));
        }
        Ok(Self { address, prefix })
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;
    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix)
    }
}

/// What a NetworkZone says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkZoneSpec {
    /// Where these addresses are.
    pub location: Location,
    /// The addresses; the longest prefix wins over other zones.
    pub cidrs: Vec<Cidr>,
    /// Whether plaintext is refused.
    #[serde(default)]
    pub encryption: Encryption,
    /// What services here speak unless they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
}

impl NetworkZoneSpec {
    /// Everything that makes no sense about it.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.cidrs.is_empty() {
            problems.push(Problem::invalid("spec.cidrs", "a zone needs at least one address range"));
        }
        if self.location == Location::Remote && self.encryption == Encryption::Optional {
            problems.push(Problem::invalid("spec.encryption", "a remote zone cannot do without encryption"));
        }
        let allows_plaintext =
            matches!(self.location, Location::Localhost | Location::Vpn) || self.encryption == Encryption::Optional;
        if self.transport.is_some_and(Transport::is_plaintext) && !allows_plaintext {
            problems.push(Problem::invalid(
                "spec.transport",
                "plaintext as a default needs `encryption: optional` in this zone",
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_addresses() {
        for (range, address, inside) in [
            ("198.18.0.0/24", "198.18.0.255", true),
            ("198.18.0.0/24", "198.18.1.0", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fdff::1", true),
            ("::1/128", "::1", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ] {
            let range: Cidr = range.parse().expect(range);
            assert_eq!(range.contains(address.parse().expect(address)), inside, "{range} {address}");
        }
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.1/8", "x/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong:?}");
        }
    }
}
