//! The pure planner: what is declared, recorded and observed goes in, a plan comes out.
