//! The example is right, and short enough to be read.

#[path = "../examples/third_party_tier.rs"]
mod third_party_tier;

#[test]
fn the_third_party_tier_keeps_its_promises() {
    third_party_tier::main();
}

#[test]
fn the_third_party_tier_has_fewer_than_a_hundred_lines() {
    let lines = include_str!("../examples/third_party_tier.rs").lines().count();
    assert!(lines < 100, "{lines} lines");
}
