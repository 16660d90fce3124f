//! Names of service tags (NSG-05).

use crate::service_tags::{COMPUTED, ServiceTags};

/// The commonest names of the published list, which are good words even where no data says their prefixes; a region
/// may follow a dot.
const SERVICES: &[&str] = &[
    "ActionGroup",
    "ApiManagement",
    "AppConfiguration",
    "AppService",
    "AppServiceManagement",
    "AzureActiveDirectory",
    "AzureActiveDirectoryDomainServices",
    "AzureAdvancedThreatProtection",
    "AzureBackup",
    "AzureBotService",
    "AzureCloud",
    "AzureCognitiveSearch",
    "AzureConnectors",
    "AzureContainerRegistry",
    "AzureCosmosDB",
    "AzureDatabricks",
    "AzureDataExplorerManagement",
    "AzureDataLake",
    "AzureDeviceUpdate",
    "AzureDevOps",
    "AzureDigitalTwins",
    "AzureEventGrid",
    "AzureFrontDoor",
    "AzureInformationProtection",
    "AzureIoTHub",
    "AzureKeyVault",
    "AzureMachineLearning",
    "AzureMonitor",
    "AzurePlatformDNS",
    "AzurePlatformIMDS",
    "AzurePlatformLKM",
    "AzureResourceManager",
    "AzureSignalR",
    "AzureSiteRecovery",
    "AzureTrafficManager",
    "BatchNodeManagement",
    "CognitiveServicesManagement",
    "DataFactory",
    "Dynamics365ForMarketingEmail",
    "EventHub",
    "GatewayManager",
    "GuestAndHybridManagement",
    "HDInsight",
    "LogicApps",
    "MicrosoftCloudAppSecurity",
    "MicrosoftContainerRegistry",
    "PowerBI",
    "ServiceBus",
    "ServiceFabric",
    "Sql",
    "SqlManagement",
    "Storage",
    "StorageSyncService",
    "WindowsVirtualDesktop",
];

/// The tag in Azure's spelling; None: no tag of that name is known.
pub(crate) fn canonical(text: &str, tags: &ServiceTags) -> Option<String> {
    let computed = || {
        COMPUTED
            .iter()
            .copied()
            .find(|tag| tag.eq_ignore_ascii_case(text))
    };
    if let Some(tag) = tags.spelling(text).or_else(computed) {
        return Some(tag.to_owned());
    }
    let (service, region) = text
        .split_once('.')
        .map_or((text, None), |(service, region)| (service, Some(region)));
    let service = SERVICES.iter().find(|tag| tag.eq_ignore_ascii_case(service))?;
    match region {
        None => Some((*service).to_owned()),
        Some(region)
            if !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') =>
        {
            Some(format!("{service}.{region}"))
        }
        Some(_) => None,
    }
}

/// Whether the tag follows from the lab, not from data.
pub(crate) fn computed(tag: &str) -> bool {
    COMPUTED.contains(&tag)
}

/// Every name, for suggestions.
pub(crate) fn all(tags: &ServiceTags) -> impl Iterator<Item = &str> {
    COMPUTED.iter().chain(SERVICES).copied().chain(tags.names())
}
