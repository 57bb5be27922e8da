package grip

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// LocalKey is the secret with which the proxy of `fastly compute serve` signs requests. It
// protects nothing, because everybody knows it.
const LocalKey = "viceroy_dev_signing_key_dont_use_in_production"

// LocalURL is the GRIP_URL of that proxy.
const LocalURL = "http://localhost:5561/?verify-iss=viceroy&verify-key=" + LocalKey

// Config is what a GRIP_URL says about the GRIP proxy of an origin.
type Config struct {
	Publisher
	issuer string // of the signatures; "": any
	key    any    // that verifies them: a secret as []byte, or a public key
}

// ParseURL parses a GRIP_URL: the control URI of a GRIP proxy, with these parameters:
//
//   - key: the token for publishing
//   - verify-iss: the issuer of the signatures on the proxy's requests
//   - verify-key: the secret, or the public key in PEM, that verifies these signatures; after
//     "base64:" it is decoded first
//
// If verifyKey, which comes from the variable GRIP_VERIFY_KEY, is not empty, it takes the
// place of verify-key. An error says what to change, and never shows a key.
// Source: https://github.com/fanout/js-grip#the-grip_url
func ParseURL(gripURL, verifyKey string) (*Config, error) {
	u, err := url.Parse(gripURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("GRIP_URL must be an http or https URL, such as " + // err may have the keys
			"http://localhost:5561/, and the special characters in its keys must be escaped")
	}
	query, err := url.ParseQuery(u.RawQuery)
	take := func(name string) string {
		defer query.Del(name)
		return query.Get(name)
	}
	c := &Config{Publisher: Publisher{u, take("key")}, issuer: take("verify-iss")}
	verifyKey = cmp.Or(verifyKey, take("verify-key"))
	switch {
	case strings.Contains(gripURL, "{"):
		return nil, errors.New("GRIP_URL still has {...} in it: " +
			"replace it with your service's id and API token")
	case strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/publish"):
		return nil, errors.New("the path in GRIP_URL ends with /publish/: " +
			"leave it out, the origin adds it")
	case err != nil || len(query) > 0:
		return nil, errors.New("GRIP_URL may have only the parameters key, verify-iss and " +
			"verify-key: remove others, and escape the special characters in the keys")
	case verifyKey == "":
		return nil, errors.New("GRIP_URL has no verify-key: add it, or set GRIP_VERIFY_KEY; " +
			"without it, anybody could pretend to be the proxy")
	}
	u.RawQuery = ""
	if c.key, err = parseKey(verifyKey); err != nil {
		return nil, fmt.Errorf("the verify-key in GRIP_URL, or GRIP_VERIFY_KEY: %w", err)
	}
	if _, secret := c.key.([]byte); !secret && c.issuer == "" {
		return nil, errors.New("GRIP_URL needs a verify-iss, because all Fanout services " +
			"sign with the same key: add verify-iss=fastly:{service-id}")
	}
	return c, nil
}

// parseKey returns a public key, or a secret as []byte.
func parseKey(key string) (any, error) {
	raw := []byte(key)
	if text, ok := strings.CutPrefix(key, "base64:"); ok {
		// A plus sign that is not escaped in a URL arrives as a space.
		var err error
		raw, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(text, " ", "+"))
		if err != nil || len(raw) == 0 {
			return nil, errors.New("the text after base64: is not base64")
		}
	}
	switch {
	case bytes.Contains(raw, []byte(`"kty"`)): // public, so it must not become a secret
		return nil, errors.New("it is a JSON Web Key: use the same key in PEM")
	case bytes.Contains(raw, []byte("-----BEGIN ")):
		public, err := jwt.ParseECPublicKeyFromPEM(raw)
		if err != nil {
			return nil, errors.New("its PEM has no public key for ES256")
		}
		return public, nil
	}
	return raw, nil
}

// Verify returns an error if the request did not come through the GRIP proxy. The
// request's HeaderSig must be a JWT that is signed with the proxy's key, has the right
// issuer and has not expired.
func (c *Config) Verify(r *http.Request) error {
	sig, method := r.Header.Get(HeaderSig), "ES256"
	if sig == "" {
		return errors.New("not through the GRIP proxy: it has no " + HeaderSig)
	}
	if _, secret := c.key.([]byte); secret {
		method = "HS256" // a public key must never be used as a secret
	}
	_, err := jwt.Parse(sig,
		func(*jwt.Token) (any, error) { return c.key, nil },
		jwt.WithValidMethods([]string{method}),
		jwt.WithExpirationRequired(),
		jwt.WithIssuer(c.issuer))
	if err != nil {
		return fmt.Errorf("not through the GRIP proxy: its %s: %w", HeaderSig, err)
	}
	return nil
}
