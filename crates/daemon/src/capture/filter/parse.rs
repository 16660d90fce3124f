//! The filter language, from text to expression.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{Ends, Expression, FilterError, Names, SCTP, TCP, UDP};

/// As long as a line of a shell script may sensibly be.
const LONGEST: usize = 4096;
/// Parentheses in parentheses, and `not` before `not`.
const DEEPEST: usize = 64;

/// The words that say a protocol, with its number.
const PROTOCOLS: &[(&str, u8)] = &[
    ("tcp", TCP),
    ("udp", UDP),
    ("sctp", SCTP),
    ("icmp", 1),
    ("icmp6", 58),
    ("esp", 50),
    ("ah", 51),
];

const FLAGS: &[(&str, u8)] = &[
    ("tcp-fin", 1),
    ("tcp-syn", 2),
    ("tcp-rst", 4),
    ("tcp-push", 8),
    ("tcp-ack", 16),
    ("tcp-urg", 32),
    ("tcp-ece", 64),
    ("tcp-cwr", 128),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Host,
    Net,
    Port,
    PortRange,
    Proto,
}

/// What stands before a value, and holds for the next one that has nothing before it.
#[derive(Clone, Copy, Debug)]
struct Qualifiers<'a> {
    protocol: Option<&'a str>,
    ends: Ends,
    kind: Kind,
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    names: Names<'a>,
    latest: Option<Qualifiers<'a>>,
    depth: usize,
}

pub(super) fn parse(text: &str, names: Names<'_>) -> Result<Expression, FilterError> {
    if text.len() > LONGEST {
        return Err(wrong(format!("it is longer than {LONGEST} bytes")));
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        names,
        latest: None,
        depth: 0,
    };
    let expression = parser.expression()?;
    match parser.next() {
        None => Ok(expression),
        Some(token) => Err(wrong(format!(
            "`{token}` is not expected there; `and` or `or` joins conditions"
        ))),
    }
}

fn wrong(message: impl Into<String>) -> FilterError {
    FilterError {
        message: message.into(),
    }
}

fn tokens(text: &str) -> Result<Vec<&str>, FilterError> {
    const SIGNS: &[&str] = &["&&", "||", "!=", "==", "(", ")", "[", "]", "!", "=", "&", "|"];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
        let of_word = |letter: char| letter.is_ascii_alphanumeric() || "._:/-\\".contains(letter);
        let length = match sign {
            Some(sign) => sign.len(),
            None => rest.find(|letter| !of_word(letter)).unwrap_or(rest.len()),
        };
        if length == 0 {
            let sign: String = rest.chars().take(1).collect();
            return Err(wrong(format!("`{sign}` is not known here; {KNOWN}")));
        }
        let (token, behind) = rest.split_at(length);
        tokens.push(token);
        rest = behind.trim_start();
    }
    Ok(tokens)
}

/// Said with every error about what is not known.
const KNOWN: &str = "known are host, net, port, portrange, proto, src, dst, ip, ip6, tcp, udp, icmp, icmp6, sctp, esp, ah, \
                     tcp[tcpflags], and, or, not and parentheses";

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    fn takes(&mut self, wanted: &[&str]) -> bool {
        let found = self.peek().is_some_and(|token| wanted.contains(&token));
        self.at += usize::from(found);
        found
    }

    /// `and` and `or` bind alike, from left to right, as in tcpdump.
    fn expression(&mut self) -> Result<Expression, FilterError> {
        let mut left = self.unary()?;
        loop {
            if self.takes(&["and", "&&"]) {
                left = Expression::And(Box::new(left), Box::new(self.unary()?));
            } else if self.takes(&["or", "||"]) {
                left = Expression::Or(Box::new(left), Box::new(self.unary()?));
            } else {
                return Ok(left);
            }
        }
    }

    fn unary(&mut self) -> Result<Expression, FilterError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(wrong(format!("it nests deeper than {DEEPEST}")));
        }
        let expression = if self.takes(&["not", "!"]) {
            Expression::Not(Box::new(self.unary()?))
        } else if self.takes(&["("]) {
            let inner = self.expression()?;
            if !self.takes(&[")"]) {
                return Err(wrong("a parenthesis is not closed"));
            }
            inner
        } else {
            self.primitive()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn primitive(&mut self) -> Result<Expression, FilterError> {
        let first = self
            .peek()
            .ok_or_else(|| wrong("a condition is missing at its end"))?;
        let is_protocol = |word: &str| matches!(word, "ip" | "ip6") || number_of(word).is_some();
        let protocol = Some(first).filter(|word| is_protocol(word));
        if protocol.is_some() {
            self.at += 1;
        }
        if self.peek() == Some("[") {
            return self.flags(protocol);
        }
        let ends = self.ends()?;
        let kind = self.kind();
        if let (Some(protocol), None, None) = (protocol, ends, kind) {
            self.latest = None;
            return Ok(of_protocol(protocol));
        }
        let qualifiers = match (protocol, ends, kind, self.latest) {
            (None, None, None, Some(latest)) => latest,
            (None, None, None, None) => {
                return Err(wrong(format!("`{first}` is not known here; {KNOWN}")));
            }
            _ => Qualifiers {
                protocol,
                ends: ends.unwrap_or(Ends::Either),
                kind: kind.unwrap_or(Kind::Host),
            },
        };
        self.latest = Some(qualifiers);
        let value = self
            .next()
            .ok_or_else(|| wrong(format!("a value is missing after `{first}`")))?;
        self.condition(qualifiers, value)
    }

    /// `src`, `dst`, `src or dst`, `src and dst`.
    fn ends(&mut self) -> Result<Option<Ends>, FilterError> {
        let rest = self.tokens.get(self.at..).unwrap_or_default();
        let (ends, length) = match rest {
            ["src", "or" | "||", "dst", ..] | ["dst", "or" | "||", "src", ..] => (Ends::Either, 3),
            ["src", "and" | "&&", "dst", ..] | ["dst", "and" | "&&", "src", ..] => (Ends::Both, 3),
            ["src", ..] => (Ends::Source, 1),
            ["dst", ..] => (Ends::Destination, 1),
            _ => return Ok(None),
        };
        self.at += length;
        Ok(Some(ends))
    }

    fn kind(&mut self) -> Option<Kind> {
        let kind = match self.peek()? {
            "host" => Kind::Host,
            "net" => Kind::Net,
            "port" => Kind::Port,
            "portrange" => Kind::PortRange,
            "proto" => Kind::Proto,
            _ => return None,
        };
        self.at += 1;
        Some(kind)
    }

    fn condition(&mut self, qualifiers: Qualifiers<'a>, value: &str) -> Result<Expression, FilterError> {
        let Qualifiers { protocol, ends, kind } = qualifiers;
        let transport = protocol.and_then(number_of);
        let family = protocol.filter(|_| transport.is_none());
        let condition = match kind {
            Kind::Proto if transport.is_none() && ends == Ends::Either => {
                Expression::Protocol(protocol_number(value)?)
            }
            Kind::Host | Kind::Net if transport.is_none() => self.net(kind, ends, value)?,
            Kind::Port | Kind::PortRange
                if transport.is_none_or(|number| matches!(number, TCP | UDP | SCTP)) =>
            {
                let range = match kind {
                    Kind::Port => port(value).map(|port| (port, port)),
                    _ => value
                        .split_once('-')
                        .and_then(|(low, high)| Some((port(low)?, port(high)?))),
                };
                let (low, high) =
                    range.ok_or_else(|| wrong(format!("`{value}` is not a port number or range")))?;
                let range = (low.min(high), low.max(high));
                Expression::Port {
                    ends,
                    protocol: transport,
                    range,
                }
            }
            _ => {
                return Err(wrong(format!(
                    "`{}` does not go with {}",
                    protocol.unwrap_or("src or dst"),
                    match kind {
                        Kind::Host => "a host",
                        Kind::Net => "a net",
                        Kind::Proto => "proto",
                        Kind::Port | Kind::PortRange => "a port",
                    }
                )));
            }
        };
        Ok(match family {
            Some(family) => Expression::And(Box::new(of_protocol(family)), Box::new(condition)),
            None => condition,
        })
    }

    fn net(&mut self, kind: Kind, ends: Ends, value: &str) -> Result<Expression, FilterError> {
        if kind == Kind::Host {
            let addresses = match value.parse::<IpAddr>() {
                Ok(address) => vec![address],
                Err(_) => (self.names)(value),
            };
            if addresses.is_empty() {
                return Err(wrong(format!(
                    "`{value}` is not an address, and no VM or NIC of the lab has that name"
                )));
            }
            return Ok(Expression::Net(
                ends,
                addresses.into_iter().map(IpNet::from).collect(),
            ));
        }
        let no_net = || wrong(format!("`{value}` is not a network such as 10.0.0.0/16"));
        let net = match value.parse::<IpNet>() {
            Ok(net) => net,
            Err(_) => short_net(value).ok_or_else(no_net)?,
        };
        let net = if self.takes(&["mask"]) {
            let mask = self.next().and_then(|mask| mask.parse().ok()).map(IpAddr::V4);
            let masked = mask.and_then(|mask| IpNet::with_netmask(net.addr(), mask).ok());
            masked.ok_or_else(|| wrong("a mask such as 255.255.0.0 is missing after `mask`"))?
        } else {
            net
        };
        if net.trunc() != net {
            return Err(wrong(format!(
                "`{value}` has bits set behind its prefix; {} is the network",
                net.trunc()
            )));
        }
        Ok(Expression::Net(ends, vec![net]))
    }

    /// `tcp[tcpflags] & FLAGS = VALUE`; `tcp[13]` is the same.
    fn flags(&mut self, protocol: Option<&str>) -> Result<Expression, FilterError> {
        let start = self.takes(&["["]) && self.takes(&["tcpflags", "13"]) && self.takes(&["]"]);
        if protocol != Some("tcp") || !start || !self.takes(&["&"]) {
            return Err(wrong(
                "of bytes of a packet only `tcp[tcpflags] & FLAGS = VALUE` is known",
            ));
        }
        self.latest = None;
        let mask = self.flag_set()?;
        let equal = match self.next() {
            Some("=" | "==") => true,
            Some("!=") => false,
            _ => return Err(wrong("`=` or `!=` is missing after the flags")),
        };
        let value = self.flag_set()?;
        Ok(Expression::Flags { mask, value, equal })
    }

    fn flag_set(&mut self) -> Result<u8, FilterError> {
        let inside = self.takes(&["("]);
        let mut set = 0;
        loop {
            let word = self.next().unwrap_or_default();
            let known = FLAGS.iter().find(|(name, _)| *name == word).map(|(_, bit)| *bit);
            let hexadecimal = word
                .strip_prefix("0x")
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            set |= known
                .or(hexadecimal)
                .or_else(|| word.parse().ok())
                .ok_or_else(|| {
                    wrong(format!(
                        "`{word}` is no TCP flag such as tcp-syn, and no number below 256"
                    ))
                })?;
            if !self.takes(&["|"]) {
                break;
            }
        }
        if inside && !self.takes(&[")"]) {
            return Err(wrong("a parenthesis is not closed"));
        }
        Ok(set)
    }
}

fn of_protocol(word: &str) -> Expression {
    match number_of(word) {
        Some(number) => Expression::Protocol(number),
        None => Expression::V6(word == "ip6"),
    }
}

fn number_of(word: &str) -> Option<u8> {
    PROTOCOLS
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, number)| *number)
}

fn protocol_number(value: &str) -> Result<u8, FilterError> {
    let name = value.strip_prefix('\\').unwrap_or(value);
    let known = number_of(name).or_else(|| name.parse().ok());
    known.ok_or_else(|| {
        wrong(format!(
            "`{value}` is no protocol: a number below 256, or a name such as tcp"
        ))
    })
}

fn port(value: &str) -> Option<u16> {
    value.parse().ok()
}

/// `10`, `10.1` and `10.1.2` are networks of so many bytes.
fn short_net(value: &str) -> Option<IpNet> {
    let bytes: Vec<u8> = value.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    let mut address = [0; 4];
    address.get_mut(..bytes.len())?.copy_from_slice(&bytes);
    let length = u8::try_from(bytes.len() * 8).ok()?;
    Some(IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), length).ok()?))
}
