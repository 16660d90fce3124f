//! What a lab keeps of resources for management clients: the section `resources`.

use indexmap::IndexMap;

use crate::decode::object;

object! {
    /// A resource group, a resource that the lab has no other place for, or more about an object of the lab.
    StoredResource {
        /// Its region, where the object itself says none.
        location: Option<String> = "location",
        /// Tags by name.
        tags: IndexMap<String, String> = "tags",
        /// A JSON object: properties that are kept and do nothing.
        properties: Option<String> = "properties",
    }
}
