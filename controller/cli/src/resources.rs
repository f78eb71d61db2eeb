//! Resources as people type them: `service/web`, `services web api`, `svc,hosts`, `all`.

use windlass_crds::id::{Kind, Namespace, ResourceKey, ServiceKey};

use crate::connection::NamespaceArgs;
use crate::failure::UsageError;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Everything of these kinds, in the order in which they were typed.
    Kinds(Vec<Kind>),
    /// These.
    Named(Vec<ResourceKey>),
}

/// Which words name a kind, for messages.
const KINDS: &str = "service (svc), host, networkzone (zone), policy, configrepo";

/// Reads the words of a command that takes kinds as well as names.
///
/// # Errors
/// When a word is no kind or no name, or the words do not go together.
pub(crate) fn selection(words: &[String], namespace: &NamespaceArgs) -> Result<Selection, UsageError> {
    let slashes = words.iter().filter(|word| word.contains('/')).count();
    match words {
        [] => Err(UsageError(format!("say what: {KINDS}, or kind/name"))),
        _ if slashes == words.len() => keys_with_kind(words, namespace).map(Selection::Named),
        _ if slashes > 0 => {
            Err(UsageError("either every resource is kind/name, or one kind stands before the names".into()))
        }
        [kinds] => kinds_of(kinds).map(Selection::Kinds),
        [kind, names @ ..] => {
            let kind = kind_of(kind)?;
            let keys = names.iter().map(|name| key(kind, name, namespace)).collect::<Result<_, _>>()?;
            Ok(Selection::Named(unique(keys)))
        }
    }
}

/// Reads the words of a command that takes names only.
///
/// # Errors
/// When a word is no kind or no name, or there is none.
pub(crate) fn keys(words: &[String], namespace: &NamespaceArgs) -> Result<Vec<ResourceKey>, UsageError> {
    match selection(words, namespace)? {
        Selection::Named(keys) => Ok(keys),
        Selection::Kinds(_) => Err(UsageError(format!("say which: {0}/NAME, or {0} NAME…", words[0]))),
    }
}

/// Reads the one Service of a command that takes nothing else.
///
/// # Errors
/// When it is something else.
pub(crate) fn service(words: &[String], namespace: &NamespaceArgs) -> Result<ServiceKey, UsageError> {
    let mut keys = services(words, namespace)?;
    match (keys.pop(), keys.is_empty()) {
        (Some(key), true) => Ok(key),
        _ => Err(UsageError("one Service at a time".into())),
    }
}

/// Reads the Services of a command that takes nothing else.
///
/// # Errors
/// When one of them is something else.
pub(crate) fn services(words: &[String], namespace: &NamespaceArgs) -> Result<Vec<ServiceKey>, UsageError> {
    let service = |key| match key {
        ResourceKey::Service(key) => Ok(key),
        other => Err(UsageError(format!("{other} is a {}; this command is for Services", other.kind()))),
    };
    keys(words, namespace)?.into_iter().map(service).collect()
}

fn keys_with_kind(words: &[String], namespace: &NamespaceArgs) -> Result<Vec<ResourceKey>, UsageError> {
    let keys = words.iter().map(|word| {
        let (kind, name) = word.split_once('/').unwrap_or((word, ""));
        key(kind_of(kind)?, name, namespace)
    });
    keys.collect::<Result<_, _>>().map(unique)
}

/// Without what was typed twice.
fn unique(keys: Vec<ResourceKey>) -> Vec<ResourceKey> {
    let mut seen = std::collections::BTreeSet::new();
    keys.into_iter().filter(|key| seen.insert(key.clone())).collect()
}

fn kinds_of(words: &str) -> Result<Vec<Kind>, UsageError> {
    if words == "all" {
        return Ok(vec![Kind::Service, Kind::Host, Kind::NetworkZone, Kind::Policy, Kind::ConfigRepo]);
    }
    let mut kinds = Vec::new();
    for word in words.split(',') {
        let kind = kind_of(word)?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

fn kind_of(word: &str) -> Result<Kind, UsageError> {
    Kind::from_word(word).ok_or_else(|| UsageError(format!("{word:?} is no kind; there are {KINDS}")))
}

/// One resource; a Service's name may carry its namespace, as it is printed.
fn key(kind: Kind, name: &str, namespace: &NamespaceArgs) -> Result<ResourceKey, UsageError> {
    let wrong = |error| UsageError(format!("{}/{name}: {error}", kind.singular()));
    Ok(match kind {
        Kind::Service => ResourceKey::Service(match name.split_once('/') {
            None => ServiceKey { namespace: namespace.or_default(), name: name.parse().map_err(wrong)? },
            Some((own, name)) => {
                let own: Namespace = own.parse().map_err(wrong)?;
                if let Some(asked) = namespace.namespace.as_ref().filter(|asked| **asked != own) {
                    return Err(UsageError(format!("service/{own}/{name} is not in namespace {asked}")));
                }
                ServiceKey { namespace: own, name: name.parse().map_err(wrong)? }
            }
        }),
        Kind::Host => ResourceKey::Host(name.parse().map_err(wrong)?),
        Kind::NetworkZone => ResourceKey::NetworkZone(name.parse().map_err(wrong)?),
        Kind::ConfigRepo => ResourceKey::ConfigRepo(name.parse().map_err(wrong)?),
        Kind::Policy => ResourceKey::Policy(name.parse().map_err(wrong)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str, namespace: Option<&str>) -> String {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let namespace = NamespaceArgs { namespace: namespace.map(|name| name.parse().expect(name)) };
        match selection(&words, &namespace) {
            Ok(Selection::Kinds(kinds)) => kinds.iter().map(|kind| kind.plural()).collect::<Vec<_>>().join(" "),
            Ok(Selection::Named(keys)) => keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn words_are_read_as_kubectl_does() {
        for (words, namespace, expected) in [
            ("services", None, "services"),
            ("svc,hosts,svc", None, "services hosts"),
            ("all", None, "services hosts networkzones policies configrepos"),
            ("service/web", None, "service/web"),
            ("svc/web host/web1 svc/web", None, "service/web host/web1"),
            ("services web api", None, "service/web service/api"),
            ("service/web", Some("prod"), "service/prod/web"),
            ("service/prod/web", None, "service/prod/web"),
            ("service/prod/web", Some("prod"), "service/prod/web"),
            ("zone/vpn", None, "networkzone/vpn"),
            ("service/prod/web", Some("dev"), "error: service/prod/web is not in namespace dev"),
            ("", None, "error: say what: service (svc), host, networkzone (zone), policy, configrepo, or kind/name"),
            (
                "pods",
                None,
                "error: \"pods\" is no kind; there are service (svc), host, networkzone (zone), policy, configrepo",
            ),
            (
                "service web host/web1",
                None,
                "error: either every resource is kind/name, or one kind stands before the names",
            ),
            (
                "host/a/b",
                None,
                "error: host/a/b: \"a/b\" is not a DNS label: lower-case letters, digits and inner hyphens only",
            ),
            ("service/", None, "error: service/: is empty"),
        ] {
            assert_eq!(read(words, namespace), expected, "{words:?}");
        }
    }
}
