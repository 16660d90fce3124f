//! Who is meant by a word: a VM, a NIC, an address or the Internet.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use crate::topology::{Endpoint, NicIndex, SiteIndex, Topology};
use crate::words::{closest, shown};

/// Also the name of the lab's namespace of test addresses.
pub(crate) const INTERNET: &str = "internet";

/// A word that names nothing in the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEndpoint {
    pub word: String,
    /// The nearest name there is.
    pub suggestion: Option<String>,
}

impl fmt::Display for UnknownEndpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the lab has no VM, NIC or address '{}'", shown(&self.word))?;
        match &self.suggestion {
            Some(name) => write!(out, "; did you mean '{name}'?"),
            None if self.word.eq_ignore_ascii_case(INTERNET) => {
                out.write_str("; give it one with `internet: { addresses: [198.51.100.7] }`")
            }
            None => Ok(()),
        }
    }
}

impl std::error::Error for UnknownEndpoint {}

impl Topology {
    /// A VM's name means its first NIC; then NIC names, `internet` and addresses. Case does not matter.
    ///
    /// # Errors
    /// The word names nothing in the lab.
    pub fn endpoint(&self, word: &str) -> Result<Endpoint, UnknownEndpoint> {
        EndpointIndex::new(self).find(word)
    }

    /// A word that [`Topology::endpoint`] takes for this endpoint: the VM where it is a VM's first NIC.
    #[must_use]
    pub fn endpoint_name(&self, endpoint: &Endpoint) -> String {
        match endpoint {
            Endpoint::Nic(index) => {
                let nic = &self.nics[index.0];
                let vm = nic.vm.map(|vm| &self.vms[vm.0]);
                vm.filter(|vm| vm.nics.first() == Some(index))
                    .map_or_else(|| nic.name.clone(), |vm| vm.name.clone())
            }
            Endpoint::Address(address) => address.to_string(),
            Endpoint::Internet => INTERNET.to_owned(),
            Endpoint::Site(site) => self.sites[site.0].name.clone(),
        }
    }

    /// The NIC with the address; None when there is none, or several (VNET-07).
    #[must_use]
    pub fn nic_at(&self, address: IpAddr) -> Option<NicIndex> {
        let mut owners = (0..self.nics.len()).filter(|&nic| self.nics[nic].addresses.contains(&address));
        let first = owners.next()?;
        owners.next().is_none().then_some(NicIndex(first))
    }

    /// The site in whose most specific prefix the address lies; the first of equal ones.
    #[must_use]
    pub fn site_at(&self, address: IpAddr) -> Option<SiteIndex> {
        let sites = self.sites.iter().enumerate();
        let lengths = sites.filter_map(|(index, site)| Some((site.has(address)?, index)));
        lengths
            .reduce(|best, next| if next.0 > best.0 { next } else { best })
            .map(|(_, index)| SiteIndex(index))
    }
}

/// The names of a lab, in lower case.
pub(crate) struct EndpointIndex<'a> {
    topology: &'a Topology,
    names: HashMap<String, NicIndex>,
}

impl<'a> EndpointIndex<'a> {
    pub(crate) fn new(topology: &'a Topology) -> Self {
        let nics = topology
            .nics
            .iter()
            .enumerate()
            .map(|(nic, it)| (it.name.to_lowercase(), NicIndex(nic)));
        let mut names: HashMap<String, NicIndex> = nics.collect();
        for vm in &topology.vms {
            if let Some(first) = vm.nics.first() {
                names.insert(vm.name.to_lowercase(), *first);
            }
        }
        Self { topology, names }
    }

    pub(crate) fn find(&self, word: &str) -> Result<Endpoint, UnknownEndpoint> {
        if let Ok(address) = word.parse() {
            return Ok(Endpoint::Address(address));
        }
        if let Some(nic) = self.names.get(&word.to_lowercase()) {
            return Ok(Endpoint::Nic(*nic));
        }
        let mut sites = self.topology.sites.iter();
        if let Some(site) = sites.position(|site| site.name.eq_ignore_ascii_case(word)) {
            return Ok(Endpoint::Site(SiteIndex(site)));
        }
        if word.eq_ignore_ascii_case(INTERNET) && self.topology.internet.is_some() {
            return Ok(Endpoint::Internet);
        }
        let vms = self.topology.vms.iter().map(|vm| vm.name.as_str());
        let sites = self.topology.sites.iter().map(|site| site.name.as_str());
        let known = vms
            .chain(self.topology.nics.iter().map(|nic| nic.name.as_str()))
            .chain(sites);
        Err(UnknownEndpoint {
            word: word.to_owned(),
            suggestion: closest(word, known).map(str::to_owned),
        })
    }
}
