//! The loop that ties store, hosts, sources and planner together.
