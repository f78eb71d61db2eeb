//! Plays scripts on every server, and compares what they say with what is written.

use std::thread;

use anyhow::{Context, Result, ensure};

use crate::protocol::{Session, parse};
use crate::subject::Subject;

/// Plays scripts, each of a title and of lines `operation => answer`, on every server.
///
/// What is wrong is told as the script with the answers that came, so that it can be judged, and written down.
#[track_caller]
pub(crate) fn check<const SCRIPTS: usize>(scripts: [(&str, &str); SCRIPTS]) {
    check_on(&Subject::ALL, scripts);
}

/// As [`check`], on some servers: for what depends on how a server is set.
#[track_caller]
pub(crate) fn check_on<const SCRIPTS: usize>(subjects: &[Subject], scripts: [(&str, &str); SCRIPTS]) {
    let outcomes: Vec<Result<Vec<String>>> = thread::scope(|scope| {
        let run = |subject: &Subject| {
            let subject = *subject;
            scope.spawn(move || on_one(subject, &scripts))
        };
        let threads: Vec<_> = subjects.iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("a script panicked")).collect()
    });
    let mut wrong = Vec::new();
    for (subject, outcome) in subjects.iter().zip(outcomes) {
        match outcome {
            Ok(told) => wrong.extend(told.into_iter().map(|told| format!("{subject:?}: {told}"))),
            Err(error) => wrong.push(format!("{subject:?}: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The scripts that went otherwise than they are written.
fn on_one(subject: Subject, scripts: &[(&str, &str)]) -> Result<Vec<String>> {
    let server = subject.start()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut wrong = Vec::new();
        for (title, script) in scripts {
            let came = play(&server.endpoint(), script).await.with_context(|| format!("in {title:?}"))?;
            if came != lines(script) {
                wrong.push(format!("{title}\n{}\n", came.join("\n")));
            }
        }
        Ok(wrong)
    })
}

async fn play(endpoint: &str, script: &str) -> Result<Vec<String>> {
    let mut session = Session::begin(endpoint).await?;
    let mut came = Vec::new();
    for line in lines(script) {
        let asked = line.split("=>").next().unwrap_or_default().trim();
        let operation = parse(asked)?;
        ensure!(parse(&operation.to_string())? == operation, "{operation} is not what {asked} says");
        let answer = session.play(&operation).await?;
        came.push(joined(&format!("{asked} => {answer}")));
    }
    Ok(came)
}

/// The lines of a script, without the space that makes it pleasant to read.
fn lines(script: &str) -> Vec<String> {
    script.lines().map(joined).filter(|line| !line.is_empty()).collect()
}

fn joined(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
