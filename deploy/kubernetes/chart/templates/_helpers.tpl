{{- define "route-guardian.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "route-guardian.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "route-guardian.labels" -}}
{{ include "route-guardian.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The configuration as TOML: of strings, numbers, truths and lists of them JSON is a part of TOML. Single keys come
before tables, since what follows a table's name is in it. */}}
{{- define "route-guardian.config" -}}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ $value | toRawJson }}
{{- end }}
{{- end }}
{{- range $table, $keys := .Values.config }}
{{- if kindIs "map" $keys }}

[{{ $table }}]
{{- range $key, $value := $keys }}
{{ $key }} = {{ $value | toRawJson }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* "node" where it listens on the node's address. A pod that scrapes does not reach a node's loopback. */}}
{{- define "route-guardian.listen" -}}
{{- if .Values.podMonitor.enabled }}node{{ else }}{{ .Values.http.listen }}{{ end }}
{{- end }}

{{/* "yes" where Kubernetes is told anything: that takes a token. */}}
{{- define "route-guardian.tells" -}}
{{- with .Values.config.kubernetes }}{{ if or .events .node_condition }}yes{{ end }}{{ end }}
{{- end }}

{{/* Without a host a probe goes to the pod's address, which is the node's. */}}
{{- define "route-guardian.probe" -}}
httpGet:
  {{- if eq (include "route-guardian.listen" .root) "loopback" }}
  host: 127.0.0.1
  {{- end }}
  path: {{ .path }}
  port: metrics
timeoutSeconds: 3
{{- end }}

{{- define "route-guardian.securityContext" -}}
runAsUser: 0
readOnlyRootFilesystem: true
{{- if .Values.security.privileged }}
privileged: true
{{- else }}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
  add:
    {{- concat (list "BPF" "NET_ADMIN" "PERFMON" "SYS_PTRACE") .Values.security.extraCapabilities | uniq | toYaml | nindent 4 }}
{{- if include "route-guardian.hasAppArmorField" . }}
appArmorProfile:
  type: Unconfined
{{- end }}
seccompProfile:
  type: Unconfined
seLinuxOptions:
  type: spc_t
{{- end }}
{{- end }}

{{/* Before Kubernetes 1.30 it is an annotation. */}}
{{- define "route-guardian.hasAppArmorField" -}}
{{- if semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version }}yes{{ end }}
{{- end }}
