//! `windlass audit list`: who did what, or the records themselves, for whoever keeps them elsewhere.

use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use windlass_crds::audit::{Chain, Record, Sealed};
use windlass_crds::document::API_VERSION;
use windlass_crds::id::{HostName, Kind, Namespace, ResourceKey, ServiceKey, ServiceName};
use windlass_crds::span::Span;
use windlass_store::{Entry, Key, Scope, Section};

use crate::commands::ClientArgs;
use crate::exit::Exit;
use crate::output::{self, Label};
use crate::table::{Columns, cell};
use crate::text::{LINE, cut, printable};

/// So many entries are shown unless told otherwise: more than anybody reads.
const LIMIT: usize = 1000;

/// Show who did what, the newest last
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass audit list --service web --since 2h
  windlass audit list --kind host -o wide
  windlass audit list --since 2026-12-01T00:00:00Z --until 2026-12-02T00:00:00Z -o json
  windlass audit list -o jsonl >trail.jsonl && windlass audit verify --file trail.jsonl")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(super) pick: Pick,
}

/// What of the trail is shown, and how.
#[derive(Debug, Args)]
pub(crate) struct Pick {
    /// Of one Service, in the namespace of -n, or as NAMESPACE/NAME
    #[arg(long, value_name = "NAME", conflicts_with_all = ["host", "kind"])]
    service: Option<String>,
    /// Of one Host
    #[arg(long, value_name = "NAME", conflicts_with = "kind")]
    host: Option<HostName>,
    /// Of one kind: service, host, networkzone, configrepo, policy
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<Kind>,
    /// What is as young as this, or as late: 2h, 7d, 2026-12-01T08:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// What is as old as this, or as early
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// How many entries are shown, the last ones; not for jsonl
    #[arg(long, value_name = "COUNT", default_value_t = LIMIT)]
    limit: usize,
    /// How to print them
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table with more columns
    Wide,
    /// JSON
    Json,
    /// Each record as it is stored, a line each, with its signature
    Jsonl,
}

fn kind(word: &str) -> Result<Kind, String> {
    Kind::from_word(word).ok_or_else(|| "one of service, host, networkzone, configrepo, policy".to_owned())
}

/// A time, or how long ago that is.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, crate::failure::UsageError> {
    let ago = |span: Span| SignedDuration::try_from(span.duration()).ok().and_then(|ago| now.checked_sub(ago).ok());
    let at = text.parse::<Timestamp>().ok().or_else(|| text.parse::<Span>().ok().and_then(ago));
    at.ok_or_else(|| {
        crate::failure::UsageError(format!("{text:?} is neither a time like 2026-12-01T08:00:00Z nor an age like 2h"))
    })
}

/// Which records somebody wants.
struct Wanted {
    /// Of one chain.
    chain: Option<Chain>,
    kind: Option<Kind>,
    namespace: Option<Namespace>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Wanted {
    fn of(pick: &Pick, client: &ClientArgs) -> anyhow::Result<Self> {
        let now = Timestamp::now();
        let service = pick.service.as_deref().map(|name| service(name, client)).transpose()?;
        let host = pick.host.clone().map(ResourceKey::Host);
        let namespace = client.namespace.namespace.clone().filter(|_| service.is_none());
        Ok(Self {
            chain: service.or(host).map(Chain::Resource),
            kind: pick.kind,
            namespace,
            since: pick.since.as_deref().map(|text| moment(text, now)).transpose()?,
            until: pick.until.as_deref().map(|text| moment(text, now)).transpose()?,
        })
    }

    fn scope(&self) -> Scope {
        self.chain.as_ref().map_or_else(|| Scope::section(Section::Audit), Scope::chain)
    }

    /// Whether all of the trail is wanted.
    fn is_all(&self) -> bool {
        self.chain.is_none() && self.is_any_kind() && self.since.is_none() && self.until.is_none()
    }

    fn is_any_kind(&self) -> bool {
        self.kind.is_none() && self.namespace.is_none()
    }

    fn takes(&self, chain: &Chain, at: Timestamp) -> bool {
        let kind = match chain {
            Chain::Anchors | Chain::Leader => self.is_any_kind(),
            Chain::Resource(key) => {
                let inside =
                    |namespace: &Namespace| matches!(key, ResourceKey::Service(key) if key.namespace == *namespace);
                self.kind.is_none_or(|kind| kind == key.kind()) && self.namespace.as_ref().is_none_or(inside)
            }
        };
        kind && self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at <= until)
    }
}

fn service(name: &str, client: &ClientArgs) -> anyhow::Result<ResourceKey> {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (namespace.parse()?, name),
        None => (client.namespace.or_default(), name),
    };
    let name: ServiceName = name.parse()?;
    Ok(ResourceKey::Service(ServiceKey { namespace, name }))
}

/// A record that is shown, and where it stands in its order.
struct Shown {
    order: (Timestamp, Chain, u64),
    sealed: (String, String),
    record: Record,
}

pub(super) async fn run(pick: &Pick, client: &ClientArgs) -> anyhow::Result<Exit> {
    let wanted = Wanted::of(pick, client)?;
    let store = client.connection.connect().await?;
    if pick.output == Some(Format::Jsonl) {
        let mut count = 0_usize;
        store
            .each_page(&wanted.scope(), |entries| {
                for entry in entries.iter().filter(|entry| exports(&wanted, entry)) {
                    count += 1;
                    output::bytes(&[&entry.value[..], b"\n"].concat())?;
                }
                anyhow::Ok(())
            })
            .await?;
        if count > 0 && !wanted.is_all() {
            output::note("a part of the trail: `windlass audit verify --file FILE --part` checks what is in it");
        }
        return Ok(Exit::Done);
    }
    let (mut shown, mut odd, mut found) = (Vec::new(), 0_usize, 0_usize);
    store
        .each_page(&wanted.scope(), |entries| {
            for entry in entries {
                match read(&entry) {
                    Some(one) if one.record.entries.is_empty() || !takes(&wanted, &one.record) => {}
                    Some(one) => {
                        found += 1;
                        shown.push(one);
                    }
                    None => odd += 1,
                }
            }
            keep_last(&mut shown, pick.limit);
            anyhow::Ok(())
        })
        .await?;
    shown.sort_by(|one, other| one.order.cmp(&other.order));
    print(&shown, pick.output)?;
    if found > shown.len() {
        let shown = shown.len();
        output::note(format_args!(
            "the last {shown} of {found} records; --limit shows more, --since and --until others"
        ));
    }
    if odd > 0 {
        output::labelled(Label::Warning, format_args!("{odd} records cannot be read"));
        output::labelled(
            Label::Hint,
            "`windlass audit verify` says which, and whether somebody has tampered with them",
        );
    }
    Ok(Exit::Done)
}

/// Drops the oldest of many, so that no more than twice the limit is ever held.
fn keep_last(shown: &mut Vec<Shown>, limit: usize) {
    if shown.len() > limit {
        shown.sort_by(|one, other| one.order.cmp(&other.order));
        shown.drain(..shown.len() - limit);
    }
}

/// Whether a record is exported: all of them where all is wanted, those too that nobody can read.
fn exports(wanted: &Wanted, entry: &Entry) -> bool {
    // A value with a line break is no record, and would be two.
    let is_line = !entry.value.contains(&b'\n');
    let link = || Sealed::of(&entry.value).and_then(|sealed| sealed.link());
    is_line && (wanted.is_all() || link().is_ok_and(|link| wanted.takes(&link.chain, link.at)))
}

fn takes(wanted: &Wanted, record: &Record) -> bool {
    wanted.takes(&record.link.chain, record.link.at)
}

fn read(entry: &Entry) -> Option<Shown> {
    let Key::Audit(chain, number) = &entry.key else { return None };
    let sealed = Sealed::of(&entry.value).ok()?;
    let record = sealed.record().ok()?;
    let order = (record.link.at, chain.clone(), number.0);
    Some(Shown { order, sealed: (sealed.key.to_string(), sealed.key.short()), record })
}

fn print(shown: &[Shown], format: Option<Format>) -> anyhow::Result<()> {
    match format {
        Some(Format::Json) => {
            let items: Result<Vec<Value>, _> = shown.iter().map(item).collect();
            output::line(format_args!(
                "{:#}",
                json!({"apiVersion": API_VERSION, "kind": "AuditRecordList", "items": items?})
            ))?;
        }
        Some(Format::Jsonl) => {}
        None | Some(Format::Wide) if shown.is_empty() => output::note("nothing is in the audit trail that fits"),
        None | Some(Format::Wide) => {
            let is_wide = format.is_some();
            let mut rows = vec![headings(is_wide)];
            rows.extend(shown.iter().flat_map(|one| rows_of(one, is_wide)));
            output::data(&Columns::default().render(&rows))?;
        }
    }
    Ok(())
}

fn item(shown: &Shown) -> serde_json::Result<Value> {
    let mut item = serde_json::to_value(&shown.record)?;
    item["key"] = shown.sealed.0.clone().into();
    Ok(item)
}

fn headings(is_wide: bool) -> Vec<String> {
    let wide: &[&str] = if is_wide { &["RECORD", "KEY"] } else { &[] };
    ["TIME", "RESOURCE"].iter().chain(wide).chain(&["WHO", "WHAT"]).map(|&heading| heading.to_owned()).collect()
}

fn rows_of(shown: &Shown, is_wide: bool) -> Vec<Vec<String>> {
    let link = &shown.record.link;
    let time = link.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let row = |who: &str, what: &str| {
        let mut row = vec![time.clone(), cell(&link.chain)];
        if is_wide {
            row.extend([link.number.to_string(), shown.sealed.1.clone()]);
        }
        let what = printable(what);
        let what = if is_wide { what } else { cut(&what, LINE) };
        row.extend([cell(&printable(who)), cell(&what)]);
        row
    };
    let entries = shown.record.entries.iter();
    let mut rows: Vec<_> = entries.map(|entry| row(&entry.who.to_string(), &entry.what.to_string())).collect();
    let left_out = Some(shown.record.left_out).filter(|left_out| *left_out > 0);
    rows.extend(left_out.map(|left_out| row("", &format!("and {left_out} more, for which the record had no room"))));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_ages() {
        let now: Timestamp = "2026-12-01T08:00:00Z".parse().expect("a time");
        for (text, expected) in [
            ("2h", Some("2026-12-01T06:00:00Z")),
            ("1d", Some("2026-11-30T08:00:00Z")),
            ("2026-11-01T00:00:00Z", Some("2026-11-01T00:00:00Z")),
            ("yesterday", None),
        ] {
            let expected = expected.map(|text| text.parse().expect("a time"));
            assert_eq!(moment(text, now).ok(), expected, "{text}");
        }
    }

    #[test]
    fn records_are_picked_by_kind_namespace_and_time() {
        let now: Timestamp = "2026-12-01T08:00:00Z".parse().expect("a time");
        let wanted = |kind, namespace: Option<&str>, since| Wanted {
            chain: None,
            kind,
            namespace: namespace.map(|name| name.parse().expect(name)),
            since,
            until: None,
        };
        let chains = ["services/default/web", "services/shop/web", "hosts/web1", "leader"];
        let taken = |wanted: &Wanted| {
            let chains = chains.map(|path| Chain::from_path(path).expect(path));
            chains.map(|chain| wanted.takes(&chain, now))
        };
        assert_eq!(taken(&wanted(None, None, None)), [true, true, true, true]);
        assert_eq!(taken(&wanted(Some(Kind::Host), None, None)), [false, false, true, false]);
        assert_eq!(taken(&wanted(None, Some("shop"), None)), [false, true, false, false]);
        assert_eq!(taken(&wanted(None, None, now.checked_add(SignedDuration::from_secs(1)).ok())), [false; 4]);
    }
}
