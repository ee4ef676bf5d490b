//! Values of place: where to listen, and on which CPUs to run.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use telemetry::units::ParseUnitError;

/// Where to listen: one address and port or several, in the order given, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<SocketAddr>);

/// Most addresses of one server. Each is a listener of its own for every acceptor.
const MOST_ADDRESSES: usize = 1024;

impl Addresses {
    /// The addresses; at least one.
    pub fn as_slice(&self) -> &[SocketAddr] {
        &self.0
    }

    /// The first of them.
    pub fn first(&self) -> SocketAddr {
        self.0[0]
    }
}

impl From<SocketAddr> for Addresses {
    fn from(address: SocketAddr) -> Self {
        Self(vec![address])
    }
}

impl FromStr for Addresses {
    type Err = ParseUnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |part: &str| {
            ParseUnitError::new(format!(
                "`{part}` is no address; write IP:PORT, e.g. 0.0.0.0:9700 or [::]:9700, IP:FIRST-LAST for several \
                 ports, and commas between several"
            ))
        };
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (host, ports) = part.rsplit_once(':').ok_or_else(|| wrong(part))?;
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { return Err(wrong(part)) };
            if first > last {
                return Err(ParseUnitError::new(format!("`{part}`: the first port is above the last")));
            }
            for port in first..=last {
                let address = format!("{host}:{port}").parse().map_err(|_| wrong(part))?;
                if addresses.contains(&address) && port != 0 {
                    return Err(ParseUnitError::new(format!("`{text}` names {address} twice")));
                }
                addresses.push(address);
            }
            if addresses.len() > MOST_ADDRESSES {
                return Err(ParseUnitError::new(format!("`{text}` is more than {MOST_ADDRESSES} addresses")));
            }
        }
        Ok(Self(addresses))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            address.fmt(f)?;
        }
        Ok(())
    }
}
telemetry::string_serde!(Addresses);
telemetry::text_schema!(Addresses, ".+:[0-9]+(-[0-9]+)?");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_lists_and_ranges() {
        let text = |text: &str| text.parse::<Addresses>().map(|addresses| addresses.to_string());
        assert_eq!(text("127.0.0.1:9700").unwrap(), "127.0.0.1:9700");
        assert_eq!(
            text("127.0.0.1:9700-9702, [::1]:80").unwrap(),
            "127.0.0.1:9700,127.0.0.1:9701,127.0.0.1:9702,[::1]:80"
        );
        assert_eq!(text("0.0.0.0:0,0.0.0.0:0").unwrap(), "0.0.0.0:0,0.0.0.0:0", "the kernel gives each its own port");
        for (wrong, says) in [
            ("", "`` is no address"),
            ("localhost:80", "`localhost:80` is no address"),
            ("::1:80", "is no address"),
            ("1.2.3.4:80,", "`` is no address"),
            ("1.2.3.4:90-80", "the first port is above the last"),
            ("1.2.3.4:80-82,1.2.3.4:81", "names 1.2.3.4:81 twice"),
            ("1.2.3.4:1-60000", "more than 1024 addresses"),
        ] {
            let error = text(wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
