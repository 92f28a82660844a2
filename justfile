# What people do in this repository. CI does the same: the commands themselves are in .ci/run.

# list the recipes
default:
    @just --list

# run the gateway, with options: just serve --listen 127.0.0.1:0
serve *OPTIONS:
    cargo run --release -- serve {{ OPTIONS }}

# show the whole product on loopback, in ten seconds
demo:
    cargo run --release -- demo

# run the tests; with a filter: just test websocket
test *FILTER:
    cargo test --locked --workspace {{ FILTER }}

# put what the tests of real clients need under target/
clients:
    bash .ci/run clients

# build the proxy that the transparency test compares with
reference:
    bash .ci/run reference

# format the code
format:
    cargo fmt --all

# lints, every warning an error
lint:
    bash .ci/run lint

# the documentation of the code, every warning an error
docs:
    bash .ci/run docs

# instructions of ten scenarios, against committed budgets
instructions:
    bash .ci/run instructions

# licences, duplicates and sources of the dependencies
dependencies:
    bash .ci/run dependencies

# everything a change must pass
ci:
    bash .ci/run
