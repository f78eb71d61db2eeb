//! Plays operations to several servers at once, and tells the first answer that is not the same.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use futures::future::try_join_all;

use super::generator::Generator;
use crate::protocol::{Answer, Operation, Session};
use crate::subject::{Server, Subject};

/// Those that are compared; the first one is right.
const SUBJECTS: [Subject; 4] = Subject::ALL;

/// Operations of one seed.
const OPERATIONS: usize = 60;

/// Servers that are compared, and stay for many seeds.
pub(super) struct Duel {
    servers: Vec<Server>,
}

/// What was asked, and what each server answered.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) operation: Operation,
    /// As many as [`SUBJECTS`], in their order.
    pub(super) answers: Vec<Answer>,
}

impl Line {
    /// What a server said otherwise than the first one.
    pub(super) fn difference(&self) -> Option<String> {
        let (right, others) = self.answers.split_first()?;
        let mut told = String::new();
        for (subject, answer) in SUBJECTS.iter().skip(1).zip(others) {
            if answer != right {
                let _ = write!(told, "\n  {subject:?}: {answer}");
            }
        }
        (!told.is_empty()).then(|| format!("{}\n  {:?}: {right}{told}", self.operation, SUBJECTS[0]))
    }
}

impl Duel {
    pub(super) fn begin() -> Result<Self> {
        Ok(Self { servers: SUBJECTS.into_iter().map(Subject::start).collect::<Result<_>>()? })
    }

    /// Plays a seed, up to the first difference.
    pub(super) async fn play_seed(&self, seed: u64) -> Result<Vec<Line>> {
        let mut generator = Generator::new(seed);
        self.play(|revision, so_far| (so_far < OPERATIONS).then(|| generator.next(revision))).await
    }

    /// Leaves out of a script what does not matter for its last line to differ.
    pub(super) async fn shorten(&self, mut script: Vec<Operation>) -> Result<Vec<Operation>> {
        for position in (0..script.len().saturating_sub(1)).rev() {
            let mut shorter = script.clone();
            shorter.remove(position);
            let lines = self.play(|_, so_far| shorter.get(so_far).cloned()).await?;
            if lines.last().is_some_and(|line| line.difference().is_some()) {
                script = lines.into_iter().map(|line| line.operation).collect();
            }
        }
        Ok(script)
    }

    /// Plays what `next` says, which is told the revision and how many operations there were, up to the first
    /// difference.
    pub(super) async fn play(&self, mut next: impl FnMut(i64, usize) -> Option<Operation>) -> Result<Vec<Line>> {
        let mut sessions = try_join_all(self.servers.iter().map(async |server| {
            let endpoint = server.endpoint();
            Session::begin(&endpoint).await
        }))
        .await?;
        let mut lines: Vec<Line> = Vec::new();
        let mut revision = 0;
        while let Some(operation) = next(revision, lines.len()) {
            let asked = sessions
                .iter_mut()
                .zip(SUBJECTS)
                .map(async |(session, subject)| session.play(&operation).await.with_context(|| format!("{subject:?}")));
            let answers = try_join_all(asked).await.with_context(|| script(&lines))?;
            let told = answers.first().cloned().and_then(|mut answer| answer.revision_mut().and_then(|told| told.0));
            revision = told.unwrap_or(revision);
            let line = Line { operation, answers };
            let over = line.difference().is_some();
            lines.push(line);
            if over {
                break;
            }
        }
        Ok(lines)
    }
}

/// What was asked, as a script of the conformance suite.
pub(super) fn script(lines: &[Line]) -> String {
    let mut script = String::new();
    for Line { operation, answers } in lines {
        let right = answers.first().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(script, "{operation} => {right}");
    }
    script
}
