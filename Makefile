# Real commands, thinly wrapped: nothing here is more than what you would type.

# .cargo/config.toml names the host as target, so that is where cargo puts the binary.
TARGET := $(or $(CARGO_TARGET_DIR),target)
TINYFAAS := $(TARGET)/$(shell rustc --print host-tuple)/release/tinyfaas

.PHONY: start test build release lint fmt clean

# Build, serve, deploy the examples, call them, stay up until ctrl-C.
start: build
	TINYFAAS=$(TINYFAAS) tests/start

# Every test: units, and the program as its users meet it. What they call is installed first, where that can be.
test:
	tests/setup
	cargo test

# One static binary.
build:
	cargo build --release

# Tarballs and Debian packages for every target, in dist/.
release:
	cross/release

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

fmt:
	cargo fmt

# Remove from the Docker engine what any tinyFaaS left there, and the state of `make start`.
clean: build
	$(TINYFAAS) clean
	rm -rf target/start
