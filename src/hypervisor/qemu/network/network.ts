// Network devices of a managed QEMU: a card in the guest, and what it is plugged into.
//
//   guest ─ card (-device, "card-ID") ─ netdev (-netdev, "ID") ─▶ tap, user network, socket
//
// The gate of a device is at its netdev. The card's type and its address must be the same on both hosts; what the netdev
// is plugged into need not be, but for a tap (of a virtio card) and a user network: those have a part in QEMU's state.

import { readFile } from 'node:fs/promises';
import { badConfiguration } from '../../port.js';

export type NetworkBackend =
  /** A tap that exists, plugged into a bridge by whoever made it. */
  | { readonly kind: 'tap'; readonly interface: string }
  /** QEMU's own network; `options` as for -netdev user, for instance "hostfwd=tcp:127.0.0.1:2222-:22". */
  | { readonly kind: 'user'; readonly options: string }
  /** As for -netdev socket, for instance "listen=127.0.0.1:1234". */
  | { readonly kind: 'socket'; readonly options: string }
  /** A hub with nobody else at it; each has a number of its own. */
  | { readonly kind: 'nowhere'; readonly hub: number };

export interface NetworkDevice {
  readonly id: string;
  readonly backend: NetworkBackend;
  /** "52:54:00:…"; default: QEMU counts up from 52:54:00:12:34:56. */
  readonly mac?: string;
  /** As for -device. Default: virtio, for the bus that the machine has. */
  readonly model?: string;
}

/** `machine` as for -machine. @throws HypervisorError BAD_CONFIGURATION */
export function networkArguments(devices: readonly NetworkDevice[], machine: string): string[] {
  const virtio = /^microvm(,|$)/.test(machine) ? 'virtio-net-device' : 'virtio-net-pci';
  const seen = new Set<string>();
  return devices.flatMap(({ id, backend, mac, model = virtio }) => {
    if (!/^[a-z][a-z0-9-]{0,31}$/i.test(id) || seen.has(id)) {
      throw badConfiguration(`the network device ${id} needs a name of its own`, { key: 'id', value: id });
    }
    seen.add(id);
    const card = `${model},netdev=${id},id=card-${id}${mac === undefined ? '' : `,mac=${mac}`}`;
    return ['-netdev', netdev(id, backend), '-device', card];
  });
}

/**
 * QEMU makes a tap that is not there, if it may, and nobody has plugged that in.
 * @throws HypervisorError BAD_CONFIGURATION
 */
export async function checkTaps(devices: readonly NetworkDevice[]): Promise<void> {
  const taps = devices.flatMap(({ backend }) => (backend.kind === 'tap' ? [backend.interface] : []));
  if (taps.length === 0) return;
  // Of our own network namespace, whichever one /sys shows.
  const interfaces = await readFile('/proc/self/net/dev', 'utf8');
  const names = new Set([...interfaces.matchAll(/^ *([^ :]+):/gm)].map(([, name]) => name));
  const missing = taps.find((tap) => !names.has(tap));
  if (missing === undefined) return;
  throw badConfiguration(
    `there is no tap ${missing}: make it (ip tuntap add ${missing} mode tap), and plug it into a bridge`,
    { key: 'tap', value: missing },
  );
}

function netdev(id: string, backend: NetworkBackend): string {
  if (backend.kind === 'nowhere') return `hubport,id=${id},hubid=${backend.hub}`;
  if (backend.kind !== 'tap') return `${backend.kind},id=${id},${backend.options}`;
  // A comma in a value is written twice. vhost would carry the guest's frames past QEMU, and so past its gate.
  const name = backend.interface.replaceAll(',', ',,');
  return `tap,id=${id},ifname=${name},script=no,downscript=no,vhost=off`;
}
