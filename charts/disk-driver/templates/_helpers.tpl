{{- define "gameserver-disk-driver.name" -}}
{{- .Values.nameOverride | default "disk-driver" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* The longest suffix of an object's name is -provisioner, and of a pod's name five more characters. */ -}}
{{- define "gameserver-disk-driver.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "gameserver-disk-driver.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "gameserver-disk-driver.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gameserver-disk-driver.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Labels of the pods. The chart's name and version are not among them: a new version alone restarts nothing. */ -}}
{{- define "gameserver-disk-driver.podLabels" -}}
{{ include "gameserver-disk-driver.selectorLabels" . }}
app.kubernetes.io/part-of: gameserver-cluster
{{- end -}}

{{- define "gameserver-disk-driver.labels" -}}
{{ include "gameserver-disk-driver.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ include "gameserver-disk-driver.chart" . }}
{{- end -}}

{{- define "gameserver-disk-driver.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The image of a sidecar: its part of the values. */ -}}
{{- define "gameserver-disk-driver.sidecarImage" -}}
{{- with .image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Names of the objects without a namespace. */ -}}
{{- define "gameserver-disk-driver.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "gameserver-disk-driver.fullname" .) -}}
{{- end -}}

{{- define "gameserver-disk-driver.serviceAccountName" -}}
{{- include "gameserver-disk-driver.fullname" . -}}
{{- end -}}

{{- /* The driver's name for Kubernetes. Each volume has it, so it can never change. */ -}}
{{- define "gameserver-disk-driver.driver" -}}
disk-driver.gameserver
{{- end -}}

{{- /* The sidecars run as root without any capability: the driver's socket is root's. */ -}}
{{- define "gameserver-disk-driver.sidecarSecurityContext" -}}
runAsUser: 0
runAsGroup: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "gameserver-disk-driver.sidecarVolumeMounts" -}}
- name: plugin
  mountPath: /csi
  readOnly: true
- name: token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end -}}
