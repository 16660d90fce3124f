//! ARM ids: `/subscriptions/S/resourceGroups/G/providers/NAMESPACE/TYPE/NAME[/TYPE/NAME]...`, compared without regard to case.

/// A path below a subscription, as sent: no part is in canonical spelling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Id {
    pub subscription: String,
    pub group: Option<String>,
    /// Such as `Microsoft.Network`; None for the subscription or the group itself.
    pub provider: Option<String>,
    /// Type and name, from the outermost in. The last name is None for a list; an action of POST is no part of it.
    pub parts: Vec<(String, Option<String>)>,
}

impl Id {
    /// Of an id in a body, or a path: empty segments do not count. None where it is no id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
        Self::of(&segments)
    }

    /// Of the segments of a path.
    #[must_use]
    pub fn of<S: AsRef<str>>(segments: &[S]) -> Option<Self> {
        let mut rest = segments.iter().map(AsRef::as_ref).peekable();
        if !same(rest.next()?, "subscriptions") {
            return None;
        }
        let mut id = Self {
            subscription: rest.next()?.to_owned(),
            ..Self::default()
        };
        if rest.peek().is_some_and(|word| same(word, "resourceGroups")) {
            rest.next();
            id.group = Some(rest.next()?.to_owned());
        }
        match rest.next() {
            None => return Some(id),
            Some(word) if same(word, "providers") => {}
            Some(_) => return None,
        }
        id.provider = Some(rest.next()?.to_owned());
        while let Some(kind) = rest.next() {
            id.parts.push((kind.to_owned(), rest.next().map(str::to_owned)));
        }
        Some(id)
    }
}

/// As ARM compares names.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || one.to_lowercase() == other.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_without_regard_to_case_and_empty_segments() {
        let id = Id::parse(
            "/Subscriptions/s//resourcegroups/G/PROVIDERS/Microsoft.Network/virtualNetworks/v/subnets/n/",
        );
        let id = id.unwrap();
        assert_eq!((id.subscription.as_str(), id.group.as_deref()), ("s", Some("G")));
        assert_eq!(id.provider.as_deref(), Some("Microsoft.Network"));
        let part = |kind: &str, name: &str| (kind.to_owned(), Some(name.to_owned()));
        assert_eq!(id.parts, [part("virtualNetworks", "v"), part("subnets", "n")]);
    }

    #[test]
    fn what_is_no_id_is_none() {
        for text in [
            "",
            "/",
            "/providers/x",
            "/subscriptions",
            "/subscriptions/s/resourceGroups",
            "/subscriptions/s/x",
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
        let list = Id::parse("/subscriptions/s/providers/Microsoft.Network/virtualNetworks").unwrap();
        assert_eq!(list.parts, [(String::from("virtualNetworks"), None)]);
    }
}
