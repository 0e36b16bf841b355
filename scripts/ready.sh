#!/usr/bin/env bash
# The checks of `just ready`, beside the tests: format, lints, documentation, built files, licences.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\nmortise: %s\n' "$*"; }

step 'format (cargo fmt)'
cargo fmt --check
step 'lints (clippy), with Node and without'
cargo clippy --quiet --all-targets --no-default-features -- -D warnings
cargo clippy --quiet --lib -- -D warnings
step 'documentation (rustdoc)'
RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps --no-default-features --document-private-items
step 'the core does not depend on napi'
if cargo tree --no-default-features --edges normal | grep -q napi; then
  echo 'napi is in the dependency tree without the feature node' >&2
  exit 1
fi
step 'the built files are current'
npm run --silent build:lib
git diff --exit-code --stat index.js index.d.ts nocobase.js register.js
step 'licences and advisories (cargo deny)'
if command -v cargo-deny >/dev/null; then
  cargo deny check
else
  echo 'cargo-deny is not installed: skipped'
fi
