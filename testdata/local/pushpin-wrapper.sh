#!/bin/sh
# Runs a Pushpin older than 1.40 for `fastly compute serve`. The CLI writes a configuration for 1.40 and newer: there,
# connmgr replaced condure and zurl, and two services lost their prefix. So this script changes the configuration.
# It also adds a default route to the backend "origin". An old Pushpin sends a request to the origin again after it
# missed a message. Then it may no longer know the backend, and without a route the request fails.
# The exec is needed: the CLI stops the process that it started, and that must be Pushpin itself.
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
