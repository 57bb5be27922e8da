package local

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"

	"github.com/BurntSushi/toml"
)

// Manifest has the addresses from fastly.toml's [local_server].
type Manifest struct {
	Origin      string // address of the backend "origin", host:port
	ProxyPort   int    // Pushpin's port for the requests that Viceroy hands off
	PublishPort int    // port of Pushpin for publishing; Pushpin needs the three ports after it too
}

// ReadManifest reads dir/fastly.toml. Values that the file does not set are the CLI's defaults.
// Source: https://www.fastly.com/documentation/reference/compute/fastly-toml/#local-server
func ReadManifest(dir string) (Manifest, error) {
	var file struct {
		LocalServer struct {
			Backends map[string]struct{ URL string }
			Pushpin  struct {
				ProxyPort   int `toml:"proxy_port"`
				PublishPort int `toml:"publish_port"`
			}
		} `toml:"local_server"`
	}
	file.LocalServer.Pushpin.ProxyPort, file.LocalServer.Pushpin.PublishPort = 7677, 5561
	path := filepath.Join(dir, "fastly.toml")
	if _, err := toml.DecodeFile(path, &file); err != nil {
		return Manifest{}, fmt.Errorf("read %s: %w", path, err)
	}
	u, err := url.Parse(file.LocalServer.Backends["origin"].URL)
	if err != nil || u.Hostname() == "" {
		return Manifest{}, fmt.Errorf("%s: [local_server.backends.origin] needs a url, "+
			"such as http://localhost:3000/", path)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return Manifest{
		Origin:      net.JoinHostPort(u.Hostname(), port),
		ProxyPort:   file.LocalServer.Pushpin.ProxyPort,
		PublishPort: file.LocalServer.Pushpin.PublishPort,
	}, nil
}

// GripURL returns the value of GRIP_URL for an origin behind this app: the URL to publish to,
// and the issuer and key of the signatures on the requests. The CLI configures Pushpin with
// this issuer and this key.
func (m Manifest) GripURL() string {
	const keys = "verify-iss=viceroy&verify-key=viceroy_dev_signing_key_dont_use_in_production"
	return fmt.Sprintf("http://localhost:%d/?%s", m.PublishPort, keys)
}

// Addresses returns the addresses on which Pushpin listens, host:port.
func (m Manifest) Addresses() []string {
	addrs := []string{loopback(m.ProxyPort)}
	for i := range 4 {
		addrs = append(addrs, loopback(m.PublishPort+i))
	}
	return addrs
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
