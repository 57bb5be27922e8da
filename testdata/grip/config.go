package grip

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// Config describes the GRIP proxy of an origin.
type Config struct {
	// ControlURI is the URL for publishing, without "/publish/" at the end. It may have secrets.
	ControlURI *url.URL

	token        func() string // returns the token for publishing; nil: there is none
	verifyIssuer string        // "": any
	verifyKey    any           // nil: requests are not verified
}

// ParseURL parses a GRIP_URL: the control URI of a GRIP proxy, with
// these parameters in its query.
//
//   - iss and key: publish with a JWT of this issuer, signed with this secret (HS256)
//   - key without iss: publish with this token
//   - verify-iss and verify-key: the issuer and the key of the signatures on requests; without a
//     verify-key, the key that belongs to iss is used for both
//
// After "base64:", the rest of a key is decoded first. A verify-key may be a secret, or
// a public key in PEM or as a JSON Web Key. A public key needs a verify-iss, because
// Fanout's is the same for all services. A verifyKey, from the variable
// GRIP_VERIFY_KEY, takes the place of verify-key. An error says which part is wrong and
// what to change, and never shows a key.
// Source: https://github.com/fanout/js-grip#the-grip_url
func ParseURL(gripURL, verifyKey string) (*Config, error) {
	u, err := url.Parse(gripURL)
	if err != nil {
		// err would show the keys
		return nil, errors.New("GRIP_URL is not a URL: " +
			"escape the special characters in its keys, and check its port")
	}
	query, err := url.ParseQuery(u.RawQuery)
	switch {
	case placeholder.MatchString(gripURL):
		return nil, errors.New("GRIP_URL still has {...} in it: " +
			"replace it with your service's id and API token")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("GRIP_URL is not an absolute http or https URL, " +
			"such as http://localhost:5561/")
	case strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/publish"):
		return nil, errors.New("the path in GRIP_URL ends with /publish/: " +
			"leave it out, the origin adds it")
	case err != nil:
		return nil, errors.New("the query in GRIP_URL is malformed: " +
			"escape the special characters in its keys")
	}
	names := []string{"iss", "key", "verify-iss", "verify-key"}
	for name := range query {
		known := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if known != name && slices.Contains(names, known) {
			return nil, fmt.Errorf("GRIP_URL: write %s=, not %s=", known, name)
		}
	}
	take := func(name string) string {
		defer query.Del(name)
		return query.Get(name)
	}
	issuer, key := take("iss"), take("key")
	c := &Config{ControlURI: u, verifyIssuer: take("verify-iss")}
	verifyKey = cmp.Or(verifyKey, take("verify-key"))
	switch {
	case issuer != "":
		signKey, err := parseKey(key)
		if err != nil {
			return nil, fmt.Errorf("GRIP_URL: iss needs a key for signing: %w", err)
		}
		secret, ok := signKey.([]byte)
		if !ok {
			return nil, errors.New("GRIP_URL: the key that belongs to iss must be a secret")
		}
		c.token = func() string { return sign(issuer, secret) }
		verifyKey = cmp.Or(verifyKey, key)
	case key != "":
		c.token = func() string { return key }
	}
	if verifyKey != "" {
		if c.verifyKey, err = parseKey(verifyKey); err != nil {
			return nil, fmt.Errorf("GRIP_URL: verify-key: %w", err)
		}
		if _, secret := c.verifyKey.([]byte); !secret && c.verifyIssuer == "" {
			return nil, errors.New("GRIP_URL has a public verify-key and no verify-iss: " +
				"add verify-iss=fastly:{service-id}, " +
				"because all Fanout services sign with the same key")
		}
	}
	u.RawQuery = query.Encode()
	return c, nil
}

var placeholder = regexp.MustCompile(`(?i)\{[a-z-]+\}|%7b[a-z-]+%7d`)

// parseKey parses a key for verifying or signing. It returns a public key, or a secret as []byte.
func parseKey(key string) (any, error) {
	raw := []byte(key)
	if text, ok := strings.CutPrefix(key, "base64:"); ok {
		// Accept the alphabet for URLs too, no padding, and a plus sign that was not escaped.
		text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/", " ", "+").Replace(text), "=")
		var err error
		if raw, err = base64.RawStdEncoding.DecodeString(text); err != nil {
			return nil, errors.New("the text after base64: is not base64")
		}
	}
	if len(raw) == 0 {
		return nil, errors.New("it is empty")
	}
	if bytes.Contains(raw, []byte("-----BEGIN ")) {
		public, err := jwt.ParseECPublicKeyFromPEM(raw)
		if err != nil {
			return nil, errors.New("the PEM has no public key for ES256")
		}
		return public, nil
	}
	if raw[0] != '{' {
		return raw, nil
	}
	jwk, err := jwkset.NewJWKFromRawJSON(raw,
		jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err == nil {
		if public, ok := jwk.Key().(*ecdsa.PublicKey); ok {
			return public, nil
		}
	}
	return nil, errors.New("the JSON Web Key is not a public key for ES256")
}

// sign returns a JWT that is valid for ten minutes.
func sign(issuer string, secret []byte) string {
	claims := jwt.MapClaims{"iss": issuer, "exp": time.Now().Add(10 * time.Minute).Unix()}
	// With a secret as the key, this cannot fail.
	token, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	return token
}

// Verifies reports whether there is a key for Verify to check signatures with.
func (c *Config) Verifies() bool { return c.verifyKey != nil }

// Verify returns an error if the request did not come through the GRIP proxy. The
// request's HeaderSig must be a JWT that is signed with the proxy's key, has the right
// issuer and has not expired. Without a key for verifying, any HeaderSig is accepted.
func (c *Config) Verify(r *http.Request) error {
	sig := r.Header.Get(HeaderSig)
	if sig == "" {
		return errors.New("not through the GRIP proxy: it has no " + HeaderSig)
	}
	if c.verifyKey == nil {
		return nil
	}
	method := "ES256"
	if _, secret := c.verifyKey.([]byte); secret {
		method = "HS256" // a public key must never be used as a secret
	}
	_, err := jwt.Parse(sig, func(*jwt.Token) (any, error) { return c.verifyKey, nil },
		jwt.WithValidMethods([]string{method}),
		jwt.WithExpirationRequired(),
		jwt.WithIssuer(c.verifyIssuer))
	if err != nil {
		return fmt.Errorf("not through the GRIP proxy: its %s: %w", HeaderSig, err)
	}
	return nil
}
