# The few commands there are. `just` lists them.

default:
    @just --list

# Everything that must pass: format, lints, documentation, all tests.
check:
    tests/run

# The tests of the crates and the black-box tests.
test *args:
    cargo test --workspace {{args}}

# Fuzz one target; without arguments, list them. Needs cargo-fuzz.
fuzz *args:
    tests/fuzz/run {{args}}

# Format and apply what the lints can fix.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# A server with the default configuration.
run *args:
    cargo run --release -p windrose -- serve {{args}}

# A synthetic mesh with its server.
demo *args:
    cargo run --release -p windrose -- demo {{args}}

# What is shipped.
release:
    cargo build --profile dist -p windrose
