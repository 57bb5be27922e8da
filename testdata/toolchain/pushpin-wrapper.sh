#!/bin/sh
# Runs a Pushpin older than 1.40 for `fastly compute serve`, whose configuration is for 1.40 and
# newer: there, connmgr took the places of condure and zurl, and two services lost their prefix.
# An old Pushpin that repeats a request to the origin, to recover what it missed, may forget which
# backend it was for, and then ends for want of a route: the backend "origin" gets a route for that.
# The exec matters: the CLI stops Pushpin by the process that it started.
set -eu
for arg in "$@"; do
	case $arg in
	--config=*) conf=${arg#--config=} ;;
	esac
done
if [ -n "${conf:-}" ]; then
	sed -e 's/^services=connmgr,proxy,handler$/services=condure,zurl,pushpin-proxy,pushpin-handler/' \
		-e '/^\[proxy\]$/a\
zurl_out_specs=ipc://{rundir}/{ipc_prefix}zurl-in\
zurl_out_stream_specs=ipc://{rundir}/{ipc_prefix}zurl-in-stream\
zurl_in_specs=ipc://{rundir}/{ipc_prefix}zurl-out' "$conf" >"$conf.new"
	mv "$conf.new" "$conf"
	routes=$(sed -n 's/^routesfile=//p' "$conf")
	sed -e '/^id=origin /{p;s/^id=origin /* /;}' "$routes" >"$routes.new"
	mv "$routes.new" "$routes"
fi
exec '@PUSHPIN@' "$@"
