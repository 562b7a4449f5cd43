{{- define "capfleet.name" -}}
{{- if contains "capfleet" .Release.Name }}{{ .Release.Name | trunc 30 | trimSuffix "-" }}{{ else }}{{ printf "%s-capfleet" (.Release.Name | trunc 21 | trimSuffix "-") }}{{ end -}}
{{- end }}

{{- define "capfleet.labels" -}}
{{ include "capfleet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "capfleet.selector" -}}
app.kubernetes.io/name: capfleet
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "capfleet.image" -}}
{{ .root.Values.image.registry | trimSuffix "/" }}/{{ .name }}:{{ .tag | default .root.Values.image.tag | default .root.Chart.AppVersion }}{{ .variant }}
{{- end }}

{{/* The pools, each with the defaults that it does not override. */}}
{{- define "capfleet.pools" -}}
{{- $pools := list }}
{{- range .Values.workers }}
{{- $pool := mergeOverwrite (deepCopy $.Values.workerDefaults) . }}
{{- if kindIs "invalid" $pool.terminationGracePeriodSeconds }}
{{- $_ := set $pool "terminationGracePeriodSeconds" (add $pool.graceSeconds 15) }}
{{- end }}
{{- $pools = append $pools $pool }}
{{- end }}
{{- toJson $pools }}
{{- end }}

{{/* What producers and workers are told alike. Takes the root and `role`: producer or worker. */}}
{{- define "capfleet.env" -}}
{{- $values := .root.Values }}
{{- $role := get $values.s3 .role }}
- name: CAPFLEET_STATE
  value: {{ $values.state | quote }}
- name: CAPFLEET_REDIS_URL
  valueFrom:
    secretKeyRef: {{ (get $values.redis .role).secret | toJson }}
{{- with $values.engines }}
- name: CAPFLEET_ENGINES
  value: {{ . | quote }}
{{- end }}
{{- with $values.s3.endpoint }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
{{- end }}
{{- with $values.s3.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- range $name := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
{{- with $role.secretName }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: { name: {{ . }}, key: {{ $name }} }
{{- end }}
{{- end }}
{{- if $values.s3.stores.secret.name }}
- name: CAPFLEET_STORES
  value: /etc/capfleet/stores/{{ $values.s3.stores.secret.key }}
{{- end }}
{{- if $values.caBundle.configMap.name }}
- name: NODE_EXTRA_CA_CERTS
  value: /etc/capfleet/ca/{{ $values.caBundle.configMap.key }}
{{- end }}
{{- range $name, $value := $values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "capfleet.mounts" -}}
{{- if .Values.s3.stores.secret.name }}
- { name: stores, mountPath: /etc/capfleet/stores, readOnly: true }
{{- end }}
{{- if .Values.caBundle.configMap.name }}
- { name: ca, mountPath: /etc/capfleet/ca, readOnly: true }
{{- end }}
- { name: tmp, mountPath: /tmp }
- { name: cache, mountPath: /var/cache/capfleet }
{{- end }}

{{- define "capfleet.volumes" -}}
{{- with .Values.s3.stores.secret }}{{ if .name }}
- name: stores
  secret: { secretName: {{ .name }} }
{{- end }}{{ end }}
{{- with .Values.caBundle.configMap }}{{ if .name }}
- name: ca
  configMap: { name: {{ .name }} }
{{- end }}{{ end }}
{{- end }}

{{- define "capfleet.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "capfleet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}
