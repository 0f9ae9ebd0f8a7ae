// SPDX-License-Identifier: Apache-2.0

// Package browser holds the tests of the page of `kubectl podwall ui` in Debian's Chromium. They
// start the page and the browser in a network namespace of their own, in which there is nothing but
// the loopback.
package browser
