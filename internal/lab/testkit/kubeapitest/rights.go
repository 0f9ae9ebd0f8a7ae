// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubeapitest

import (
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// AwaitRights waits until the server allows a user what the rules say, in a namespace, or in all if it is
// empty. The server learns of a role and of its binding some time after it has stored them.
func AwaitRights(tb testing.TB, api kubernetes.Interface, user, namespace string, rules ...rbacv1.PolicyRule) {
	tb.Helper()
	for _, r := range rules {
		what := authorizationv1.ResourceAttributes{Namespace: namespace}
		if len(r.ResourceNames) > 0 {
			what.Name = r.ResourceNames[0]
		}
		for _, what.Group = range r.APIGroups {
			for _, what.Resource = range r.Resources {
				for _, what.Verb = range r.Verbs {
					awaitRight(tb, api, user, what)
				}
			}
		}
	}
}

func awaitRight(tb testing.TB, api kubernetes.Interface, user string, what authorizationv1.ResourceAttributes) {
	tb.Helper()
	question := &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &what}}
	reviews := api.AuthorizationV1().SubjectAccessReviews()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		answer, err := reviews.Create(tb.Context(), question, metav1.CreateOptions{})
		if err != nil {
			tb.Fatal(err)
		}
		if answer.Status.Allowed {
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("the API server does not allow %s to %s %s: %s", user, what.Verb, what.Resource,
				answer.Status.Reason)
		}
	}
}
