{{- define "agentos.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What never changes about a pod: selectors are immutable. */}}
{{- define "agentos.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "agentos.labels" -}}
{{ include "agentos.selector" . }}
app.kubernetes.io/version: {{ include "agentos.tag" . | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "agentos.tag" -}}
{{- default .Chart.AppVersion .Values.image.tag -}}
{{- end }}

{{/* {root, pool}: repository:tag, or repository@digest. A pool that names a repository takes nothing of the common one. */}}
{{- define "agentos.image" -}}
{{- $own := default dict .pool.image -}}
{{- $image := ternary $own .root.Values.image (not (empty $own.repository)) -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest }}
{{- else -}}
{{ printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end }}

{{- define "agentos.databaseSecret" -}}
{{- default (printf "%s-database" (include "agentos.fullname" .)) .Values.database.existingSecret -}}
{{- end }}

{{/* {root, own: {existingSecret, key}}: the DSN of a role of its own, or the common one. */}}
{{- define "agentos.dsn" -}}
- name: AGENTOS_DSN
  valueFrom:
    secretKeyRef:
      {{- if .own.existingSecret }}
      name: {{ .own.existingSecret }}
      key: {{ .own.key }}
      {{- else }}
      name: {{ include "agentos.databaseSecret" .root }}
      key: {{ .root.Values.database.key }}
      {{- end }}
{{- end }}

{{- define "agentos.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "agentos.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* Pod Security "restricted" and more; no value weakens it. */}}
{{- define "agentos.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- if .Values.runAsUser }}
  runAsUser: {{ .Values.runAsUser }}
  runAsGroup: {{ .Values.runAsUser }}
  fsGroup: {{ .Values.runAsUser }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "agentos.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A process that answers probes. The database's absence makes it unready, and never restarts it. */}}
{{- define "agentos.probes" -}}
ports:
  - name: health
    containerPort: 8080
startupProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{/* {root, labels}: over nodes and zones, each version for itself. */}}
{{- define "agentos.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- $.labels | nindent 8 }}
  {{- end }}
{{- end }}

{{/* Where its pods may run. */}}
{{- define "agentos.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with get $ $key }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* {root, name}: a pool with what it has of workerDefaults, as JSON. */}}
{{- define "agentos.pool" -}}
{{- $own := get .root.Values.workers .name -}}
{{- mergeOverwrite (deepCopy .root.Values.workerDefaults) (deepCopy (default dict $own)) | toJson -}}
{{- end }}

{{- define "agentos.workerLabels" -}}
{{ include "agentos.selector" .root }}
app.kubernetes.io/component: worker
pool: {{ .name }}
{{- end }}

{{- define "agentos.coordinatorLabels" -}}
{{ include "agentos.selector" . }}
app.kubernetes.io/component: coordinator
{{- end }}

{{/* {root, queues}: items of these queues that are ready or held, as the coordinator last counted them. */}}
{{- define "agentos.backlog" -}}
{{- $schema := default "agentos" (get .root.Values.settings "AGENTOS_SCHEMA") -}}
{{- $counts := list -}}
{{- range .queues }}{{ $counts = append $counts (printf "%s.backlog('%s')" $schema (replace "'" "''" .)) }}{{ end -}}
SELECT {{ join " + " $counts }}
{{- end }}
