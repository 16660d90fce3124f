//! Names of service tags (NSG-05).

/// The tags that have addresses in a lab (NSG-11..13).
const OURS: &[&str] = &["VirtualNetwork", "Internet", "AzureLoadBalancer"];

/// Azure's own services, which no lab holds. The commonest of the published list; a region may follow a dot.
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
pub(crate) fn canonical(text: &str) -> Option<String> {
    if let Some(tag) = OURS.iter().find(|tag| tag.eq_ignore_ascii_case(text)) {
        return Some((*tag).to_owned());
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

/// A tag that no address of a lab belongs to.
pub(crate) fn without_addresses(tag: &str) -> bool {
    !OURS.contains(&tag)
}

/// Every name, for suggestions.
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    OURS.iter().chain(SERVICES).copied()
}
