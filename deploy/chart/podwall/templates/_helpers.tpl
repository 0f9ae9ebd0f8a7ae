{{/*
All names are fixed. There can be one agent on a node, so a second release in a cluster is a mistake;
with fixed names helm refuses it.
*/}}

{{- define "podwall.selector" -}}
app.kubernetes.io/name: podwall
{{- end }}

{{- define "podwall.labels" -}}
{{ include "podwall.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "podwall.image" -}}
{{- with .Values.image.registry }}{{ . }}/{{ end }}
{{- .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* The seconds of a duration such as 1h2m3s. The schema admits no other form. */}}
{{- define "podwall.seconds" -}}
{{- $h := regexFind "[0-9]+h" . | trimSuffix "h" | int }}
{{- $m := regexFind "[0-9]+m" . | trimSuffix "m" | int }}
{{- $s := regexFind "[0-9]+s" . | trimSuffix "s" | int }}
{{- add (mul $h 3600) (mul $m 60) $s }}
{{- end }}

{{/*
What all containers have in common. Uid 0 owns the files, directories and sockets of the node that they
use; it has no capability beside those that a container adds.
*/}}
{{- define "podwall.security" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
{{- end }}

{{/* An HTTP probe of a path. Without an address of its own the agent answers on the pod's, which is the node's. */}}
{{- define "podwall.get" -}}
{{- $root := index . 0 -}}
httpGet:
  {{- with $root.Values.health.address }}
  host: {{ . | quote }}
  {{- end }}
  path: {{ index . 1 }}
  port: health
{{- end }}
