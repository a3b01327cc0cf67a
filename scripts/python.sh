#!/bin/sh
# Run the first Python of at least 3.11, or report that there is none.
for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$candidate" "$@"
    fi
done
echo "error: no Python 3.11 or newer with venv found: install one, or name it: make PYTHON=/path/to/python3" >&2
exit 1
