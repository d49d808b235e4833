#!/bin/sh
# Prints the first suitable Python (3.11 to 3.13), or says what to install.
for candidate in "$@" python3.11 python3.12 python3.13 python3; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        command -v "$candidate"
        exit 0
    fi
done
for candidate in "$@" python3.11 python3.12 python3.13 python3; do
    # Unsuitable, but it can say why: the installer has the sentence.
    if [ -n "$candidate" ] && "$candidate" -c '' 2>/dev/null; then
        command -v "$candidate"
        exit 0
    fi
done
echo "Cloister needs Python 3.11, 3.12 or 3.13, and there is no python3 here. Debian, Ubuntu: apt-get install python3 python3-venv" >&2
exit 1
