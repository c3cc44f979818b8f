#!/usr/bin/env bash
# Runs a command beside so many machines that answer to ssh: 10.77.0.2, 10.77.0.3 and so on.
#
#     hosts.sh FOLDER HOSTS COMMAND…
#
# A machine is a set of namespaces: processes, an address, a home, /tmp and /dev/shm of its own. What
# all have in common is /mnt, the folder FOLDER/shared. They end with the command: nothing stays.
# It takes root, openssh-server and iproute2.
set -euo pipefail

folder=$1 hosts=$2
export FOLDER=$folder KEY=$folder/key

if [ -z "${INSIDE:-}" ]; then
  export INSIDE=1
  exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi

host() {  # what runs inside of host number $1
  local own=$FOLDER/$1
  mkdir -p "$own"/{home,work}
  mount -t overlay overlay -o "lowerdir=$HOME,upperdir=$own/home,workdir=$own/work" "$HOME"
  for place in /tmp /run /dev/shm; do mount -t tmpfs tmpfs $place; done
  ip link set lo up
  until ip link show eth0 &> /dev/null; do sleep 0.1; done
  ip address add "10.77.0.$1/24" dev eth0 && ip link set eth0 up
  ip route add default via 10.77.0.1  # leads nowhere, but Ray looks there for its own address
  # What a machine brings: uv, and here a cache of packages in the place of a network.
  echo "export PATH=\$PATH:$PATH UV_OFFLINE=1 UV_LINK_MODE=symlink UV_COMPILE_BYTECODE=0" >> ~/.bashrc
  mkdir -p ~/.ssh /run/sshd && install -m 600 /mnt/key.pub ~/.ssh/authorized_keys
  exec /usr/sbin/sshd -D -h /mnt/host_key -o UsePAM=no -o StrictModes=no -o PidFile=none
}

mkdir -p "$folder/shared" && mount --bind "$folder/shared" /mnt
ssh-keygen -q -t ed25519 -N '' -f "$KEY" && cp "$KEY.pub" /mnt/key.pub
ssh-keygen -q -t ed25519 -N '' -f /mnt/host_key
ip link set lo up
ip link add bridge type bridge && ip address add 10.77.0.1/24 dev bridge && ip link set bridge up
export -f host
for number in $(seq 2 $((hosts + 1))); do
  unshare --net --mount --pid --fork --kill-child --mount-proc bash -c "host $number" &
  ip link add "host$number" type veth peer name eth0
  ip link set "host$number" master bridge up
  until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
  ip link set eth0 netns $!
done
"${@:3}"
