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

{{/*
A probe of live or ready. By HTTP: without an address of its own the agent answers on the pod's, which is the
node's. A process is told the page, too: it asks there while a user's process holds the agent's lock.
*/}}
{{- define "podwall.probe" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.health.probe "exec" -}}
exec:
  command:
    - /usr/bin/podwall-agent
    - --probe={{ index . 1 }}
    - {{ printf "--health-addr=%s" $root.Values.health.address | quote }}
    - --health-port={{ $root.Values.health.port }}
{{- else -}}
httpGet:
  {{- with $root.Values.health.address }}
  host: {{ . | quote }}
  {{- end }}
  path: {{ ternary "/healthz" "/readyz" (eq (index . 1) "live") }}
  port: health
{{- end }}
{{- end }}

{{/* What the pod as a whole may not. */}}
{{- define "podwall.podSecurity" -}}
securityContext:
  seccompProfile:
    type: RuntimeDefault
  {{- with .Values.appArmorProfile }}
  appArmorProfile:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.seLinuxOptions }}
  seLinuxOptions:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* On which nodes the agent runs, and what cleans them, and whence the image comes. */}}
{{- define "podwall.placement" -}}
nodeSelector:
  kubernetes.io/os: linux
  {{- with .Values.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A container that takes podwall's tables out of the kernel, with these arguments. */}}
{{- define "podwall.clean" -}}
{{- $root := index . 0 -}}
image: {{ include "podwall.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command: [/usr/bin/podwall-agent, {{ index . 1 }}{{ if $root.Values.agent.sysctls }}, --sysctl-root=/host/proc/sys{{ end }}]
securityContext:
  {{- include "podwall.security" $root | nindent 2 }}
  capabilities:
    drop: [ALL]
    add: [NET_ADMIN]
volumeMounts:
  - name: run-podwall
    mountPath: /run/podwall
  {{- if $root.Values.agent.sysctls }}
  - name: sysctl-net
    mountPath: /host/proc/sys/net
  {{- end }}
{{- end }}

{{/* Labels and annotations of what helm makes for a while when it uninstalls: when, and when it goes. */}}
{{- define "podwall.hook" -}}
labels:
  app.kubernetes.io/name: podwall-uninstall
  app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
annotations:
  helm.sh/hook: pre-delete
  helm.sh/hook-weight: {{ index . 1 | quote }}
  helm.sh/hook-delete-policy: {{ index . 2 }}
{{- end }}
