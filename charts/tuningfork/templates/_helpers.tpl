{{/* Labels of everything in the chart. */}}
{{- define "tuningfork.labels" -}}
{{ include "tuningfork.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Labels that select the operator's pods. */}}
{{- define "tuningfork.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
tuningfork.dev/component: operator
{{- end }}

{{/* The settings file: the values as they stand, and where the release lives. */}}
{{- define "tuningfork.settings" -}}
{{- toYaml (merge (dict "namespace" .Release.Namespace) .Values.settings) }}
{{- end }}
