# Fetches a Debian package of another suite with all that it needs, down to the C library, and unpacks it apart from the system, which stays as it is:
# FOLDER TOOLS SUITE PACKAGE PROGRAM. TOOLS/bin gets a program that runs PROGRAM of the package with its own libraries.
set -e
folder=$1 tools=$2 suite=$3 package=$4 program=$5
rm -rf "$folder"
mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial" "$folder/apt/state" "$folder/root" "$tools/bin"
cd "$folder/apt"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >sources.list
: >state/status
# Its own lists, and a system in which nothing is installed.
cat >apt.conf <<END
Dir::Etc::sourcelist "$folder/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$folder/apt/state";
Dir::State::Lists "$folder/apt/lists";
Dir::State::status "$folder/apt/state/status";
Dir::Cache "$folder/apt/cache";
APT::Sandbox::User "$(id -un)";
END
apt-get --quiet -c apt.conf update
apt-get --quiet -c apt.conf --yes --no-install-recommends --download-only install "$package"
for archive in cache/archives/*.deb; do dpkg-deb --extract "$archive" "$folder/root"; done
libraries=$(dirname "$(find "$folder/root/usr/lib" -name 'libc.so.6' | head -n 1)")
loader=$(find "$libraries" -name 'ld-linux*.so*' | head -n 1)
printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' "$loader" "$libraries" "$folder/root/$program" >"$tools/bin/$(basename "$program")-unpacked"
chmod +x "$tools/bin/$(basename "$program")-unpacked"
rm -rf "$folder/apt"
