//! Values of place: which addresses and ports attempts come from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use telemetry::units::ParseUnitError;

/// Most source addresses of one generator.
const MOST_ADDRESSES: u128 = 65_536;

/// Where attempts come from: addresses and networks, taken in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<Network>);

/// An address with the length of its network's prefix; a full one means the address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    fn bits(self) -> u8 {
        if self.first.is_ipv4() { 32 } else { 128 }
    }

    /// How many hosts it has. Of an IPv4 network of four addresses or more the first and the last are not for hosts.
    fn hosts(self) -> u128 {
        let all = 1_u128.checked_shl(u32::from(self.bits() - self.prefix)).unwrap_or(u128::MAX);
        if self.skips() { all - 2 } else { all }
    }

    fn skips(self) -> bool {
        self.first.is_ipv4() && self.prefix <= 30
    }

    fn hosts_from(self) -> impl Iterator<Item = IpAddr> {
        let skip = u128::from(self.skips());
        (skip..self.hosts() + skip).map(move |number| match self.first {
            // A network has at most 65 536 hosts: both sums stay within it.
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + u32::try_from(number).unwrap_or(0)).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + number).into(),
        })
    }
}

impl Sources {
    /// Every address, in order.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.0.iter().flat_map(|network| network.hosts_from()).collect()
    }

    /// Every network with the length of its prefix, in order; that of an address alone is a full one.
    pub fn networks(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        self.0.iter().map(|network| (network.first, network.prefix))
    }

    /// Is it IPv4? All are of one family.
    pub fn is_ipv4(&self) -> bool {
        self.0[0].first.is_ipv4()
    }
}

impl FromStr for Network {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            ParseUnitError::new(format!(
                "`{text}` is no source; write IP or NETWORK/PREFIX, e.g. 127.0.0.2 or 198.18.1.0/26, and commas between several"
            ))
        };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let first: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| wrong())?;
        if prefix > bits {
            return Err(wrong());
        }
        let host_bits = bits - prefix;
        let outside = match first {
            IpAddr::V4(first) => first.to_bits().trailing_zeros() < u32::from(host_bits),
            IpAddr::V6(first) => first.to_bits().trailing_zeros() < u32::from(host_bits),
        };
        if outside {
            return Err(ParseUnitError::new(format!(
                "`{text}`: {address} is not the first address of a /{prefix} network"
            )));
        }
        Ok(Self { first, prefix })
    }
}

impl FromStr for Sources {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let networks: Vec<Network> = text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>()?;
        if networks.iter().any(|network| network.first.is_ipv4() != networks[0].first.is_ipv4()) {
            return Err(ParseUnitError::new(format!(
                "`{text}` mixes IPv4 and IPv6; a target is reached over one of them"
            )));
        }
        if networks.iter().map(|network| network.hosts()).fold(0, u128::saturating_add) > MOST_ADDRESSES {
            return Err(ParseUnitError::new(format!("`{text}` is more than {MOST_ADDRESSES} addresses")));
        }
        Ok(Self(networks))
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            network.first.fmt(f)?;
            if network.prefix < network.bits() {
                write!(f, "/{}", network.prefix)?;
            }
        }
        Ok(())
    }
}
telemetry::string_serde!(Sources);
telemetry::text_schema!(Sources, "[0-9A-Fa-f.:]+(/[0-9]+)?( *, *[0-9A-Fa-f.:]+(/[0-9]+)?)*");

/// Local ports that attempts come from, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest; 1 or more.
    pub low: u16,
    /// The highest.
    pub high: u16,
}

impl PortRange {
    /// How many there are.
    pub fn count(self) -> u64 {
        u64::from(self.high - self.low) + 1
    }
}

impl FromStr for PortRange {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ends = text.split_once('-').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
        match ends {
            Some((low, high)) if 0 < low && low <= high => Ok(Self { low, high }),
            _ => Err(ParseUnitError::new(format!("`{text}` is no range of ports; write LOW-HIGH, e.g. 20000-29999"))),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.low, self.high)
    }
}
telemetry::string_serde!(PortRange);
telemetry::text_schema!(PortRange, "[0-9]+-[0-9]+");

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        let sources: Sources = text.parse().expect("sources");
        assert_eq!(sources.to_string(), text.replace(' ', ""), "printed as written");
        sources.addresses().iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn sources_are_addresses_and_networks() {
        assert_eq!(addresses("127.0.0.2"), ["127.0.0.2"]);
        assert_eq!(addresses("198.18.1.4/30, 10.0.0.1"), ["198.18.1.5", "198.18.1.6", "10.0.0.1"]);
        assert_eq!(addresses("198.18.1.4/31"), ["198.18.1.4", "198.18.1.5"]);
        assert_eq!(addresses("fd00::8/127"), ["fd00::8", "fd00::9"]);
        assert_eq!(addresses("198.18.0.0/24").len(), 254);
    }

    #[test]
    fn what_is_no_source_is_named() {
        for (wrong, says) in [
            ("", "`` is no source"),
            ("localhost", "no source"),
            ("127.0.0.1/33", "no source"),
            ("198.18.1.5/30", "not the first address of a /30 network"),
            ("127.0.0.1,::1", "mixes IPv4 and IPv6"),
            ("127.0.0.0/8", "more than 65536 addresses"),
            ("::/0", "more than 65536 addresses"),
        ] {
            let error = wrong.parse::<Sources>().expect_err(wrong).to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn port_ranges_have_two_ends() {
        assert_eq!("20000-20009".parse::<PortRange>().expect("a range").count(), 10);
        for wrong in ["20000", "0-5", "9-8", "1-70000"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }
}
