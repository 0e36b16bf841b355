# What CI runs, by name. `just` alone lists them.
default:
    @just --list

# Format, lints, documentation, built files, licences: all but the tests.
checks:
    bash scripts/ready.sh

# Everything before a change is handed in.
ready: checks
    npm test

# The long fault suites.
faults:
    npm run test:faults

# The tests inside a real NocoBase, which is installed the first time.
nocobase:
    npm run test:nocobase
