#!/bin/sh
# Finds or installs the Fastly CLI, Viceroy and Pushpin, and prints the two lines that put them on PATH:
#
#	eval "$(testdata/tools.sh)"
#
# A program on PATH that is new enough is used. Otherwise Homebrew or npm installs the CLI, the CLI or cargo installs
# Viceroy, and Homebrew or apt installs Pushpin. With the argument "tests", apt also installs what `make test` needs.
set -eu

# "oldest" is the oldest version with which the tests have passed, "install" what is installed if there is none.
fastly_oldest=15.4.0 fastly_install=16.1.0   # 15.4 is the first with `compute install-tools`
viceroy_oldest=0.19.0 viceroy_install=0.22.0 # 0.19 is the first that has a backend's timeouts
pushpin_oldest=1.36.0 pushpin_direct=1.40.0  # 1.40 is the first that needs no wrapper
cargo_oldest=1.95.0 node_oldest=18.17.0 python_oldest=3.11.0 # cargo is for Viceroy, the others are for the tests

say() { echo "tools: $*" >&2; }
need() { missing=$(printf '%s\n- %s' "$missing" "$*"); }
has() { command -v "$1" >/dev/null; }
quote() { printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }
version() { # PROGRAM: prints its version, such as 1.2.3, or nothing if the program cannot run
	case $1 in *fastly) set -- "$1" version --quiet ;; *) set -- "$1" --version ;; esac
	text=$("$@" 2>/dev/null </dev/null) && echo "$text" | grep -Eo '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1
}
at_least() { [ "$(printf '%s\n' "$@" | sort -t . -k 1,1n -k 2,2n -k 3,3n | head -n 1)" = "$2" ]; } # VERSION OLDEST
search() ( # NAME OLDEST [DIRECTORIES]: prints the path of the first program that is new enough, by default on PATH
	set -f && IFS=:
	for dir in ${3-$PATH}; do
		# The cache may be on PATH already, and a wrapper of Pushpin must not wrap itself.
		case $dir in */fanout-forward-go/*) continue ;; /*) path=$dir/$1 ;; *) continue ;; esac
		[ ! -x "$path" ] || [ -d "$path" ] && continue
		# A signal that ends npm's script leaves the CLI running, so use the CLI itself.
		script=$(readlink -f "$path")
		case $script in */fastly.js) path=$(find "${script%/cli/*}" -path '*/cli-*/fastly' | head -n 1) ;; esac
		version=$(version "$path") || version=unknown
		if at_least "$version" "$2"; then echo "$path" && exit; fi
		say "not using ${path:-$script}, version $version: $2 or newer is needed"
	done
	exit 1
)
use() { # NAME OLDEST [DIRECTORIES]: puts what search finds into bin, or keeps what is there and new enough
	path=$(search "$@") || { at_least "$(version "$bin/$1")" "$2"; return; }
	if [ "$1" = pushpin ] && ! at_least "$(version "$path")" "$pushpin_direct"; then wrap; else ln -s "$path" "$tmp/$1"; fi
	mv -f "$tmp/$1" "$bin/$1" # at once, so that there is always a whole program
}
wrap() { # writes a script that runs a Pushpin older than 1.40, at $path, for `fastly compute serve`
	cat >"$tmp/pushpin" <<'END'
#!/bin/sh -e
# The CLI configures Pushpin 1.40 and newer, where connmgr replaced condure and zurl, and two services lost a prefix. An
# old zurl also needs a path in ASCII. And when an old Pushpin requests what it missed, it may no longer know the
# backend, so "origin" becomes the default route. The CLI stops the process that it started: hence the exec.
case ${1:-} in --config=*)
	LC_ALL=C sed -i -e 's/^services=connmgr,proxy,handler$/services=condure,zurl,pushpin-proxy,pushpin-handler/' \
		-e '/^rundir=.*[^ -~]/s|=.*/|=/tmp/|' -e '/^\[proxy\]$/a\
zurl_out_specs=ipc://{rundir}/{ipc_prefix}zurl-in\
zurl_out_stream_specs=ipc://{rundir}/{ipc_prefix}zurl-in-stream\
zurl_in_specs=ipc://{rundir}/{ipc_prefix}zurl-out' "${1#--config=}"
	sed -i '/^id=origin /{p;s/^id=origin /* /;}' "$(sed -n 's/^routesfile=//p' "${1#--config=}")" ;;
esac
END
	echo "exec $(quote "$path") \"\$@\"" >>"$tmp/pushpin"
	chmod +x "$tmp/pushpin"
}
install_fastly() {
	if has brew; then brew install fastly/tap/fastly && use fastly "$fastly_oldest"; return; fi
	has npm && npm install --prefix "$tmp" --ignore-scripts --no-audit --no-fund "@fastly/cli@$fastly_install" &&
		mv -f "$tmp"/node_modules/@fastly/cli-*/fastly "$bin/fastly"
}
download_viceroy() { # into the directory of the Fastly CLI, which reads the version from fastly.toml
	printf 'manifest_version = 3\n[local_server]\nviceroy_version = "%s"\n' "$viceroy_install" >fastly.toml
	FASTLY_VICEROY_USE_PATH='' "$bin/fastly" compute install-tools --non-interactive
}
apt() { # PACKAGES: installs packages, such as 'curl, nodejs (>= 18.17.0)', or none if one cannot be had
	has apt-get || return
	say "installing with apt, for which sudo may ask for your password: $1"
	$sudo apt-get update -q || say "continuing with the old lists of packages"
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 satisfy -qy --no-install-recommends "$1"
}
install_pushpin() {
	if has brew; then brew install pushpin; return; fi
	! dpkg -s pushpin >/dev/null 2>&1 || installed=yes
	apt "pushpin (>= $pushpin_oldest)" || return
	# Debian's package starts a service that nobody asked for, and that takes the app's ports.
	[ -n "${installed:-}" ] || { $sudo service pushpin stop && $sudo update-rc.d pushpin disable; } ||
		say "if the app's ports are taken later, stop the service pushpin by hand"
}
lacking() { # prints the Debian packages of what the tests need, if it is missing or too old
	for program in curl git shellcheck npm; do has "$program" || echo "$program,"; done
	has pgrep || echo procps,
	at_least "$(version node)" "$node_oldest" || echo "nodejs (>= $node_oldest),"
	at_least "$(version python3)" "$python_oldest" && python3 -c 'import ensurepip' || echo "python3-venv (>= $python_oldest),"
	echo '#include <stdlib.h>' | gcc -E - >&2 || echo gcc, libc6-dev, # for the race detector
	for browser in chromium chromium-browser google-chrome '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'; do
		"$browser" --version >&2 && return # Ubuntu's may be only a script that says how to install it
	done
	echo chromium
}

exec 3>&1 >&2 # only the two lines go to stdout
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fanout-forward-go config=${XDG_CONFIG_HOME:-$HOME/.config}
bin=$cache/bin tmp=$cache/tmp build=$cache/viceroy-build sudo=sudo missing='' packages='' cargo=''
[ "$(uname)" != Darwin ] || config="$HOME/Library/Application Support"
[ "$(id -u)" != 0 ] || sudo=''
mkdir -p "$bin"
# Two runs at the same time would disturb each other. A run that was killed leaves its lock behind.
until ln -s $$ "$cache/lock" 2>/dev/null; do
	holder=$(readlink "$cache/lock") || continue
	if ! kill -0 "$holder" 2>/dev/null; then rm -f "$cache/lock" && continue; fi
	[ -n "${waiting:-}" ] || say "waiting for process $holder, which installs tools"
	waiting=yes && sleep 1
done
trap 'rm -rf "$cache/lock" "$tmp"' EXIT
rm -rf "$tmp" && mkdir "$tmp" && cd "$tmp"
[ "${1:-}" != tests ] || packages=$(lacking 2>/dev/null | tr '\n' ' ')
[ -z "$packages" ] || { apt "$packages" && [ -z "$(lacking 2>/dev/null)" ]; } ||
	need "for the tests, these Debian packages or their equivalents: $packages"
use fastly "$fastly_oldest" || install_fastly ||
	need "the Fastly CLI $fastly_oldest: install npm with Node.js (https://nodejs.org/), which this script uses to install it"
use pushpin "$pushpin_oldest" || { install_pushpin && use pushpin "$pushpin_oldest"; } ||
	need "Pushpin $pushpin_oldest: see https://pushpin.org/docs/install/; on Debian 13, add bookworm to the apt sources"
[ ! -x "$bin/fastly" ] || use viceroy "$viceroy_oldest" "$PATH:$config/fastly" ||
	{ download_viceroy && use viceroy "$viceroy_oldest" "$config/fastly"; } || cargo=$(search cargo "$cargo_oldest") ||
	need "Viceroy $viceroy_oldest: if it cannot be downloaded, install Rust $cargo_oldest (https://rustup.rs/) to build it"
[ -z "$missing" ] || { say "install these by hand, in these versions or newer, and try again:$missing" && exit 1; }
if [ -n "$cargo" ]; then
	say "building Viceroy $viceroy_install with cargo, once: 10 to 20 minutes; if you interrupt it, the next run continues"
	"$cargo" install --locked --root "$build" --target-dir "$build/target" --version "$viceroy_install" viceroy
	mv -f "$build/bin/viceroy" "$bin/viceroy"
fi
rm -rf "$build" # more than a gigabyte
printf "export PATH=%s:\"\$PATH\"\nexport FASTLY_VICEROY_USE_PATH=1\n" "$(quote "$bin")" >&3
