// QEMU's last words, and what they mean to whoever wrote the configuration: what to write or to do instead. Its own words
// stay; what is not known here says enough by itself (a file that is not there, a device that does not exist).
//
// KVM may fail at three times: when it is opened, when a processor is made, and when the guest runs.

import { readFileSync } from 'node:fs';

export interface Advice {
  readonly text: string;
  /** Of the configuration. */
  readonly key: string;
  readonly value: string;
}

const KVM =
  /failed to initialize kvm|Could not access KVM|failed to set MSR|KVM internal error|kvm run failed|kvm version too old|KVM_\w+ failed|kvm_\w+: Assertion/i;
const TAP = /could not configure \/dev\/net\/tun \(([^)]*)\): ([^\n]*)/;
const TUN = /could not open \/dev\/net\/tun: ([^\n]*)/;
/** In /sys/class/net/NAME/tun_flags. */
const IFF_TUN = 0x0001;
const IFF_MULTI_QUEUE = 0x0100;

export function adviceOn(said: string): Advice | null {
  if (KVM.test(said)) return { text: kvmAdvice(said), key: 'accelerator', value: 'kvm' };
  const [, tap, reason = ''] = TAP.exec(said) ?? [];
  const ofTap = tap === undefined ? null : tapAdvice(tap, reason);
  if (tap !== undefined && ofTap !== null) return { text: ofTap, key: 'tap', value: tap };
  const [tun, why = ''] = TUN.exec(said) ?? [];
  if (tun !== undefined) return { text: tunAdvice(why), key: 'tap', value: '/dev/net/tun' };
  return null;
}

/** The words, and the advice. */
export function withAdvice(said: string): string {
  const advice = adviceOn(said);
  return advice === null ? said : `${said.replace(/[.\s]+$/, '')}; ${advice.text}`;
}

function kvmAdvice(said: string): string {
  const instead = 'write "accelerator: tcg" on both sides, which is slower and needs nothing';
  if (said.includes('Permission denied')) {
    return `this process may not use /dev/kvm: put its user into the group kvm, or ${instead}`;
  }
  if (said.includes('No such file or directory')) {
    return (
      'there is no /dev/kvm here: switch virtualisation on in the firmware (in a virtual machine: nested ' +
      `virtualisation, at its host) and load kvm_intel or kvm_amd, or ${instead}`
    );
  }
  return (
    'KVM is here (/dev/kvm) and does not do for this machine, as it is in a virtual machine without whole nested ' +
    `virtualisation: try another "cpu", or ${instead}`
  );
}

function tapAdvice(tap: string, reason: string): string | null {
  const anew = `make it anew (ip link delete ${tap}; ip tuntap add ${tap} mode tap) and plug it into its bridge`;
  if (reason.includes('busy')) {
    return `another program has the tap ${tap}, another QEMU perhaps: each guest, and each standby, needs one of its own`;
  }
  if (reason.includes('not permitted')) {
    return `the tap ${tap} belongs to another user: ip tuntap add ${tap} mode tap user NAME, or run as root`;
  }
  const flags = tunFlags(tap);
  if (flags === null) return `${tap} is no tap`;
  if ((flags & IFF_TUN) !== 0) return `${tap} is a tun, which has no Ethernet frames: ${anew}`;
  if ((flags & IFF_MULTI_QUEUE) !== 0) return `the tap ${tap} has many queues (multi_queue): ${anew}`;
  return null;
}

function tunAdvice(reason: string): string {
  if (reason.includes('No such file')) return 'load the module tun (modprobe tun)';
  return (
    'this process may not open /dev/net/tun: run as root, or let its user read and write that file and own the tap ' +
    '(ip tuntap add NAME mode tap user USER)'
  );
}

/** Null: it is none. (Where /sys shows another network namespace, this may be wrong; QEMU has refused it in any case.) */
function tunFlags(name: string): number | null {
  try {
    return Number(readFileSync(`/sys/class/net/${name}/tun_flags`, 'utf8'));
  } catch {
    return null;
  }
}
