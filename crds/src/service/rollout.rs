//! How a new revision gets to the hosts of a Service.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::span::Span;

/// How a new revision gets to the hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rollout {
    /// In which manner.
    pub strategy: Strategy,
    /// So many hosts may be down by our hand at once; it does not apply to `allAtOnce`.
    pub max_unavailable: MaxUnavailable,
    /// So many hosts may fail, each going back by itself, before all go back; not with `canary`.
    pub max_failures: u32,
    /// In which order: `name`, `zone`, or `label:<key>`. The hosts of one zone, or of one value of the label, are
    /// finished before the next begins; those without come last.
    pub order: Order,
    /// The steps of a canary; they count where `strategy: canary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// How long it must have been healthy before it counts.
    pub min_healthy_time: Span,
    /// How long a rollout may go without any progress.
    pub progress_deadline: Span,
    /// Whether an unhealthy revision is taken back.
    pub rollback_on_failure: bool,
    /// Whether a person has to agree.
    pub approval: Approval,
    /// How many revisions are kept. What runs, what would be gone back to and what is blocked is kept in any case.
    pub revision_history_limit: NonZeroU32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            max_unavailable: MaxUnavailable::Count(NonZeroU32::MIN),
            max_failures: 0,
            order: Order::Name,
            canary: None,
            min_healthy_time: Span::seconds(5),
            progress_deadline: Span::seconds(600),
            rollback_on_failure: true,
            approval: Approval::None,
            revision_history_limit: NonZeroU32::new(10).expect("10 is not zero"),
        }
    }
}

/// In which manner a revision gets to the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Strategy {
    /// A few at a time.
    Rolling,
    /// Some first, the rest when those are well.
    Canary,
    /// Beside the old one.
    BlueGreen,
    /// Every host at once.
    AllAtOnce,
}

/// In which order hosts get a revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Order {
    /// By their names.
    #[default]
    Name,
    /// By the NetworkZones that they are in, then by their names.
    Zone,
    /// By the values that they have of this label, then by their names.
    Label(String),
}

/// Why a text is no [`Order`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no order; write name, zone, or label:<key>")]
pub struct OrderError(String);

impl TryFrom<String> for Order {
    type Error = OrderError;

    fn try_from(text: String) -> Result<Self, OrderError> {
        match text.as_str() {
            "name" => Ok(Self::Name),
            "zone" => Ok(Self::Zone),
            _ => match text.strip_prefix("label:").filter(|key| !key.is_empty()) {
                Some(key) => Ok(Self::Label(key.to_owned())),
                None => Err(OrderError(text)),
            },
        }
    }
}

impl From<Order> for String {
    fn from(order: Order) -> Self {
        match order {
            Order::Name => "name".to_owned(),
            Order::Zone => "zone".to_owned(),
            Order::Label(key) => format!("label:{key}"),
        }
    }
}

/// The steps of a canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Canary {
    /// How many hosts have the revision after each step, as numbers or percentages of all; what the last one leaves
    /// follows as one step more.
    pub steps: Vec<CanaryStep>,
    /// How long every host must stay healthy after each step, the last one included; not at all unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Span>,
    /// Who starts the next step; `automatic` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
}

impl Canary {
    /// How many of `hosts` have the revision after each step, the last number being all of them.
    pub fn counts(&self, hosts: usize) -> Vec<usize> {
        let mut most = 0;
        let mut counts: Vec<usize> = self
            .steps
            .iter()
            .map(|step| {
                most = most.max(step.of(hosts));
                most
            })
            .collect();
        if most < hosts {
            counts.push(hosts);
        }
        counts
    }

    /// How long every host must stay healthy after each step.
    pub fn bakes_for(&self) -> Duration {
        self.bake.map_or(Duration::ZERO, Span::duration)
    }

    /// Whether a person starts the next step.
    pub fn needs_approval(&self) -> bool {
        self.promotion == Some(Promotion::Approved)
    }
}

/// How many hosts have a revision after a step of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CanaryStep(pub MaxUnavailable);

impl CanaryStep {
    /// How many of `hosts` that is: rounded up, at least 1, at most all.
    pub fn of(self, hosts: usize) -> usize {
        let count = match self.0 {
            MaxUnavailable::Count(count) => count.get() as usize,
            MaxUnavailable::Percent(percent) => (hosts * usize::from(percent)).div_ceil(100).max(1),
        };
        count.min(hosts)
    }
}

/// Who starts the next step of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Promotion {
    /// Windlass.
    Automatic,
    /// A person.
    Approved,
}

/// Whether a person has to agree to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Approval {
    /// Nobody.
    None,
    /// Somebody.
    Required,
}

/// A number of hosts, or a percentage of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxUnavailable {
    /// So many.
    Count(NonZeroU32),
    /// So many of a hundred, 1 to 100.
    Percent(u8),
}

impl MaxUnavailable {
    /// How many of `hosts` that is: rounded down, at least 1.
    pub fn of(self, hosts: usize) -> usize {
        match self {
            Self::Count(count) => count.get() as usize,
            Self::Percent(percent) => (hosts * usize::from(percent) / 100).max(1),
        }
    }
}

impl fmt::Display for MaxUnavailable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(out),
            Self::Percent(percent) => write!(out, "{percent}%"),
        }
    }
}

impl Serialize for MaxUnavailable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(count.get()),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for MaxUnavailable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = MaxUnavailable;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number of hosts from 1, or a percentage from 1% to 100%")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<MaxUnavailable, E> {
                let count = u32::try_from(number).ok().and_then(NonZeroU32::new);
                count
                    .map(MaxUnavailable::Count)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<MaxUnavailable, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<MaxUnavailable, E> {
                if let Ok(number) = text.parse() {
                    return self.visit_u64(number);
                }
                match text.strip_suffix('%').map(str::parse) {
                    Some(Ok(percent @ 1..=100)) => Ok(MaxUnavailable::Percent(percent)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(texts: &[&str]) -> Canary {
        let step = |text: &&str| serde_json::from_value((*text).into()).expect(text);
        Canary { steps: texts.iter().map(step).collect(), bake: None, promotion: None }
    }

    #[test]
    fn steps_are_cumulative_rounded_up_and_end_with_every_host() {
        for (texts, hosts, expected) in [
            (&["1", "25%", "100%"][..], 10, &[1, 3, 10][..]),
            (&["1", "25%", "100%"], 3, &[1, 1, 3]),
            (&["1", "25%", "100%"], 1, &[1, 1, 1]),
            (&["1%"], 1000, &[10, 1000]),
            (&["1%"], 10, &[1, 10]),
            (&["5", "10%"], 20, &[5, 5, 20]),
            (&["5"], 3, &[3]),
            (&["34%", "67%"], 3, &[2, 3]),
            (&["1"], 0, &[0]),
        ] {
            assert_eq!(steps(texts).counts(hosts), expected, "{texts:?} of {hosts}");
        }
    }

    #[test]
    fn orders_are_written_as_they_are_read() {
        for text in ["name", "zone", "label:rack"] {
            assert_eq!(String::from(Order::try_from(text.to_owned()).expect(text)), text);
        }
        for text in ["", "Zone", "label:", "label", "rack"] {
            assert!(Order::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
