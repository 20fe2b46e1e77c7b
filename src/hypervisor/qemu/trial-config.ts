// What a guest's configuration becomes for a trial of it, which nobody may see: not on the network, not on a disk, not by
// whatever else QEMU can be told to open, write to or listen at. What is known to be harmless is let through, all else is
// refused by name: a trial that cannot be kept to itself is none.
//
//   tap      the same, in a network namespace of QEMU's own: a virtio card wants a tap where it had one
//   user     without its ways in, and cut off
//   socket   a hub with nobody else at it
//   disk     a shared one: what is written goes into a file without a name, which ends with QEMU
//            a replicated one: as the standby's images are when the trial begins (disks/standby/moment.ts)

import { unsupported, type HypervisorError } from '../port.js';
import type { QemuConfig } from './config.js';
import { TRIAL_BYTES_PER_SECOND, withPlaces, type NbdPlace } from './disks/trial-drives.js';
import type { NetworkBackend } from './network/network.js';

/** Options that take no value. */
const FLAGS: ReadonlySet<string> = new Set([
  ...['nodefaults', 'no-reboot', 'no-acpi', 'no-hpet', 'no-fd-bootchk', 'no-user-config'],
]);
/** Options that take one, and are read only. */
const READ: ReadonlySet<string> = new Set([
  ...['kernel', 'initrd', 'append', 'dtb', 'bios', 'L', 'boot', 'cdrom', 'global', 'rtc', 'uuid'],
  ...['smbios', 'acpitable', 'fw_cfg', 'numa', 'drive', 'blockdev'],
]);
/** Values that must be one of these, up to the first comma. */
const CHOSEN: ReadonlyMap<string, ReadonlySet<string>> = new Map([
  ['vga', new Set(['none'])],
  ['object', new Set(['rng-random', 'rng-builtin', 'iothread', 'memory-backend-ram', 'throttle-group'])],
]);
/** Devices that are somebody else's, too, or reach them past QEMU. */
const FOREIGN_DEVICE = /^(vfio|vhost|ivshmem|virtio-9p|usb-(host|redir)|scsi-(block|generic)|u2f-passthru)/;
/** Of a user network: its addresses. */
const USER_NETWORK = /^(net|host|hostname|dns|dhcpstart|dnssearch|domainname|ipv4|ipv6|ipv6-(net|host|dns))=/;

const NOWHERE: ReadonlyMap<string, NbdPlace> = new Map();

/**
 * `places`: where it has its replicated disks.
 * @throws HypervisorError UNSUPPORTED, naming what could be seen
 */
export function trialConfig(config: QemuConfig, places = NOWHERE): QemuConfig {
  const { name, network = [], sharedDisks = [] } = config;
  return {
    ...config,
    name: `${name}-trial`,
    network: network.map((device, hub) => ({ ...device, backend: trialBackend(device.backend, hub) })),
    isolated: network.some(({ backend }) => backend.kind === 'tap'),
    arguments: withPlaces(trialArguments(config.arguments ?? [], sharedDisks), places),
    disks: {},
    // It is not saved, and it does not go back.
    dirty: 'compare',
    trialLoads: 'first',
  };
}

function trialBackend(backend: NetworkBackend, hub: number): NetworkBackend {
  if (backend.kind === 'tap') return backend;
  // A user network has a part in the device state, which must have its place.
  if (backend.kind !== 'user') return { kind: 'nowhere', hub };
  const kept = backend.options.split(',').filter((option) => USER_NETWORK.test(option));
  return { kind: 'user', options: ['restrict=on', ...kept].join(',') };
}

function trialArguments(given: readonly string[], sharedDisks: readonly string[]): string[] {
  const found = new Set<string>();
  const words: string[] = [];
  for (let at = 0; at < given.length; at++) {
    const word = given[at] ?? '';
    const option = word.replace(/^--?/, '');
    if (option === word) throw refused(word);
    words.push(word);
    if (FLAGS.has(option)) continue;
    const value = given[++at] ?? '';
    checkOption(option, value);
    const disk =
      option === 'drive' ? sharedDisks.find((name) => settings(value).includes(`id=${name}`)) : undefined;
    if (disk !== undefined) found.add(disk);
    words.push(disk === undefined ? value : withoutTrace(value));
  }
  const lost = sharedDisks.find((name) => !found.has(name));
  if (lost === undefined) return words;
  throw unsupported(
    `a trial would write to the shared disk ${lost}: only one that a -drive makes, with id=${lost}, can be spared`,
    { key: 'sharedDisks', value: lost },
  );
}

function checkOption(option: string, value: string): void {
  if (READ.has(option)) return;
  const [first = ''] = value.split(',', 1);
  if (option === 'device' && !value.startsWith('{')) {
    if (FOREIGN_DEVICE.test(first.replace(/^driver=/, ''))) throw refused(`-device ${first}`);
  } else if (CHOSEN.get(option)?.has(first.replace(/^qom-type=/, '')) !== true) {
    throw refused(`-${option}`);
  }
}

/** Of a -drive: what is written is dropped, and who writes to the disk itself is not asked whether it may be read. */
function withoutTrace(drive: string): string {
  const file = settings(drive).find((setting) => setting.startsWith('file='));
  const isPlain = file !== undefined && !/^file=[a-z0-9+.-]+:/i.test(file);
  const locking = drive.includes('file.locking=') || !isPlain ? [] : ['file.locking=off'];
  const isThrottled = /(^|,)(throttling\.|bps|iops)/.test(drive);
  const pace = isThrottled ? [] : [`throttling.bps-write=${TRIAL_BYTES_PER_SECOND}`];
  return [drive, 'snapshot=on', ...locking, ...pace].join(',');
}

/** A comma in a value is written twice. */
function settings(value: string): string[] {
  return value.split(/(?<!,),(?!,)/);
}

function refused(what: string): HypervisorError {
  return unsupported(`a trial of the domain could be seen, through ${what} in its arguments`, {
    key: 'arguments',
    value: what,
  });
}
