//! Addresses and ports of a security rule: NSG-05, NSG-07, NSG-34.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::check::Scope;
use crate::check::tags;
use crate::limits::Limit;
use crate::problems::{Problems, join};
use crate::service_tags::ServiceTags;
use crate::topology::{AsgIndex, PortRange, RuleAddress};
use crate::values::host_bits;
use crate::words::{closest, shown};

/// The address side of a rule: one of its three forms (NSG-05). Any when none is given, as `az` has it.
pub(crate) struct Field<'a> {
    pub(crate) at: &'a str,
    pub(crate) side: &'static str,
    pub(crate) prefix: Option<&'a str>,
    pub(crate) prefixes: &'a [String],
    pub(crate) asgs: &'a [String],
}

impl Field<'_> {
    fn place(&self, property: &str) -> String {
        join(self.at, &format!("{}{property}", self.side))
    }

    pub(crate) fn resolve(&self, scope: &Scope<'_>, problems: &mut Problems) -> RuleAddress {
        let tags = &scope.service_tags;
        let given = [
            self.prefix.is_some(),
            !self.prefixes.is_empty(),
            !self.asgs.is_empty(),
        ];
        if given.iter().filter(|given| **given).count() > 1 {
            let property = if self.asgs.is_empty() {
                "AddressPrefixes"
            } else {
                "ApplicationSecurityGroups"
            };
            problems
                .error(
                    "Sim.NSG-05",
                    self.place(property),
                    format!("the {} of the rule is given in two ways", self.side),
                )
                .help("give one of AddressPrefix, AddressPrefixes and ApplicationSecurityGroups");
        }
        if !self.asgs.is_empty() {
            return self.groups(scope, problems);
        }
        if let Some(text) = self.prefix {
            return match address(text, &self.place("AddressPrefix"), tags, problems) {
                Some(Word::Any) | None => RuleAddress::Any,
                Some(Word::Tag(tag)) => RuleAddress::Tag(tag),
                Some(Word::Net(net)) => RuleAddress::Prefixes(vec![net]),
            };
        }
        if self.prefixes.is_empty() {
            RuleAddress::Any
        } else {
            self.list(scope, problems)
        }
    }

    fn groups(&self, scope: &Scope<'_>, problems: &mut Problems) -> RuleAddress {
        let at = self.place("ApplicationSecurityGroups");
        let most = scope.limits.most(Limit::RuleAsgs);
        if self.asgs.len() > most {
            problems.error("Sim.NSG-34", &at, format!("at most {most} groups in one field"));
        }
        let found = self.asgs.iter().enumerate();
        let found = found.filter_map(|(i, name)| {
            scope
                .asgs
                .find(name, &join(&at, &i.to_string()), problems)
                .map(AsgIndex)
        });
        RuleAddress::Asgs(found.collect())
    }

    /// Several prefixes, or one tag.
    fn list(&self, scope: &Scope<'_>, problems: &mut Problems) -> RuleAddress {
        let tags = &scope.service_tags;
        let most = scope.limits.most(Limit::RuleAddresses);
        let at = self.place("AddressPrefixes");
        if self.prefixes.len() > most {
            problems.error(
                "Sim.NSG-34",
                &at,
                format!("at most {most} addresses in one field"),
            );
        }
        let mut nets = Vec::new();
        for (index, text) in self.prefixes.iter().enumerate() {
            let at = join(&at, &index.to_string());
            match address(text, &at, tags, problems) {
                Some(Word::Net(net)) => nets.push(net),
                Some(Word::Any) if self.prefixes.len() == 1 => return RuleAddress::Any,
                Some(Word::Tag(tag)) if self.prefixes.len() == 1 => return RuleAddress::Tag(tag),
                Some(_) => {
                    let message = format!("'{}' cannot stand in a list with other addresses", shown(text));
                    problems
                        .error("Sim.NSG-05", at, message)
                        .help("write a rule of its own for it");
                }
                None => {}
            }
        }
        RuleAddress::Prefixes(nets)
    }
}

pub(crate) enum Word {
    Any,
    Tag(String),
    Net(IpNet),
}

/// One address as a rule may say it.
pub(crate) fn address(text: &str, at: &str, tags: &ServiceTags, problems: &mut Problems) -> Option<Word> {
    if text == "*" || text.eq_ignore_ascii_case("any") {
        return Some(Word::Any);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Word::Net(IpNet::from(address)));
    }
    if let Ok(net) = text.parse::<IpNet>() {
        if net.addr() != net.network() {
            host_bits(net, at, problems);
            return None;
        }
        return Some(Word::Net(net));
    }
    if let Some(tag) = tags::canonical(text, tags) {
        if !tags::computed(&tag) && tags.prefixes(&tag).is_empty() {
            problems.note(
                at,
                format!("no prefix of the service tag {tag} is known, so that it matches nothing"),
            );
        }
        return Some(Word::Tag(tag));
    }
    let message = format!("'{}' is no address, prefix or service tag", shown(text));
    let problem = problems.error("Sim.NSG-05", at, message);
    match closest(text, tags::all(tags)) {
        Some(tag) => problem.help(format!("did you mean '{tag}'?")),
        None => problem
            .help("write '*', an address, a prefix such as 10.0.0.0/8, or a tag such as VirtualNetwork"),
    };
    None
}

/// NSG-07. Any port when none is given, as `az` has it.
pub(crate) fn ports(
    scope: &Scope<'_>,
    side: &str,
    single: Option<&str>,
    list: &[String],
    at: &str,
    problems: &mut Problems,
) -> Vec<PortRange> {
    const ALL: PortRange = PortRange {
        first: 0,
        last: u16::MAX,
    };
    let list_at = join(at, &format!("{side}PortRanges"));
    if single.is_some() && !list.is_empty() {
        problems
            .error(
                "Sim.NSG-07",
                &list_at,
                format!("the {side} ports of the rule are given in two ways"),
            )
            .help("give one of PortRange and PortRanges");
    }
    let most = scope.limits.most(Limit::RuleAddresses);
    if list.len() > most {
        problems.error(
            "Sim.NSG-34",
            &list_at,
            format!("at most {most} port ranges in one field"),
        );
    }
    let single = single.map(|text| (text, join(at, &format!("{side}PortRange"))));
    let list = list
        .iter()
        .enumerate()
        .map(|(i, text)| (text.as_str(), join(&list_at, &i.to_string())));
    let mut ranges = Vec::new();
    let mut given = false;
    for (text, at) in single.into_iter().chain(list) {
        given = true;
        match port_range(text) {
            Some(range) => ranges.push(range),
            None => {
                let message = format!("'{}' is no port or range of ports", shown(text));
                problems
                    .error("Sim.NSG-07", at, message)
                    .help("write '*', 80 or 8000-8099, from 0 to 65535");
            }
        }
    }
    if given { ranges } else { vec![ALL] }
}

fn port_range(text: &str) -> Option<PortRange> {
    if text == "*" {
        return Some(PortRange {
            first: 0,
            last: u16::MAX,
        });
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
    };
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    (first <= last).then_some(PortRange { first, last })
}
