//! Kept: seeds that once found something, each with what it was. They are played in the edition in which they did; what
//! was mended since makes their course another one, so that they show no more than that it holds now.

use crate::extras::Edition;

/// A seed that found something.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// In which edition.
    pub edition: Edition,
    /// Which.
    pub seed: u64,
    /// What it found.
    pub found: &'static str,
}

const fn first(seed: u64, found: &'static str) -> Kept {
    Kept { edition: Edition::First, seed, found }
}

const fn second(seed: u64, found: &'static str) -> Kept {
    Kept { edition: Edition::Second, seed, found }
}

const fn third(seed: u64, found: &'static str) -> Kept {
    Kept { edition: Edition::Third, seed, found }
}

const fn fourth(seed: u64, found: &'static str) -> Kept {
    Kept { edition: Edition::Fourth, seed, found }
}

/// All of them.
pub const KEPT: [Kept; 44] = [
    fourth(277, "a pause that was not told was never heard of"),
    fourth(411, "the number of the next revision was that of a record that nobody owned"),
    fourth(526, "what was recorded as blocked was not told, and activated"),
    fourth(543, "the same"),
    fourth(629, "the same"),
    fourth(8087, "the oracle: what runs from before on a machine that is declared no more is no canary"),
    fourth(2705, "a rollout that had halted while its source was read went round and round"),
    fourth(3184, "the same"),
    fourth(2127, "a canary began on two hosts, on which a first deploy had left its version at rest"),
    third(7072, "the oracle: hosts ran what an older store calls a canary when it was put in"),
    third(2898, "the oracle: a declaration that nonsense has overwritten before anybody read it is known to nobody"),
    first(23100, "what the records called unconfirmed was forgotten to be down after a takeover"),
    first(20406, "the oracle: an older store does not know of a host that was cut off"),
    first(25537, "the oracle: the same"),
    first(25711, "the oracle: the same"),
    second(60, "a host that was held back was stopped, though it had something good of its own"),
    second(158, "a host that had stopped was called ready, where the first deploy was unhealthy elsewhere"),
    second(224, "what serves was stopped since somebody had deleted its unit file"),
    second(573, "what failed on one host ended the wait for a verdict on another, again and again"),
    second(772, "a service that moved and was held back was never taken off where it had been"),
    second(1011, "the same"),
    second(1510, "what only hashes tell was found, and forgotten before it was put right"),
    second(1808, "a canary whose Host was deleted was replaced without a person's word"),
    second(20348, "a canary that was out of reach was replaced when its service was deleted and declared again"),
    second(2917, "a host that was unhealthy when it was tried again kept all others waiting"),
    second(32377, "a host that had gone back by itself and one of an earlier zone waited for each other"),
    second(34269, "what was held back with nothing that the records know to go back to was followed by others"),
    second(35287, "the same"),
    second(46814, "what was unhealthy on one host alone was called unconfirmed, and another one waited for it"),
    second(81998, "what somebody had stopped on a host whose fence was lost was never started again"),
    second(
        91417,
        "an older store's revision was gone back to, each minute, until the host that contradicts it was seen",
    ),
    second(61783, "an abort that was asked before another version was found aborted that one"),
    second(64695, "the same"),
    second(2298, "the oracle: events that are over are nobody's writes"),
    second(10137, "the oracle: what is held back waits while another host is tried again"),
    second(261, "the oracle: what cannot be repaired while another host is down"),
    second(556, "the oracle: a file of what is not to run is not put right"),
    second(36151, "the oracle: what serves where it shall not be goes on while it serves nowhere where it shall"),
    second(20467, "the oracle: nor is one of what was stopped, since it does not work there"),
    second(50907, "the oracle: that a host goes back by itself where a service leaves it is nobody's write"),
    second(77182, "the oracle: an approval of a fleet that was smaller was of more of its steps"),
    second(51225, "the oracle: an older store has other hosts declared, of which a share is another number"),
    second(52985, "the oracle: an older store does not know that a host out of reach is a canary"),
    second(20285, "the oracle: what had fallen ill did not get well where its unit file was gone"),
];
