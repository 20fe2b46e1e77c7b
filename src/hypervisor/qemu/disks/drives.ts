// The disks in a QEMU's arguments that are files of this host, and that its guest may write to: those that are
// replicated. They are found before there is a QEMU, because a standby's may not be there yet.
//
//   -drive file=/a.img,format=raw,id=disk        ─▶ disk, /a.img, raw
//   -blockdev driver=qcow2,node-name=disk,file.driver=file,file.filename=/a
//   -blockdev '{"driver": "qcow2", …}'           and with its file in a -blockdev of its own
//
// What is not understood here (a remote image, a filter) QEMU shows as a disk that nobody replicates, and is refused.

import { isAbsolute, resolve } from 'node:path';
import { valueAt } from '../../../stream/bounds.js';
import { badConfiguration } from '../../port.js';
import { isObject } from '../monitor/qmp-parser.js';

/** Of one disk; the defaults are those of the configuration. */
export interface DiskOptions {
  /** relaxed: the primary does not wait for its own disk when the guest flushes (cache.no-flush). */
  readonly durability: 'strict' | 'relaxed';
  /** Of an image that is not there yet. */
  readonly bytes?: number;
  /** It is given all of its room when it is made. */
  readonly preallocate: boolean;
}

export interface LocalDisk {
  /** The same on both hosts: that of its -drive; of its -device; of its node. */
  readonly id: string;
  /** As QEMU's arguments name it. */
  readonly name: string;
  /** Absolute. */
  readonly file: string;
  /** raw, qcow2, … */
  readonly format: string;
  readonly options: DiskOptions;
}

/** Of QemuConfig. */
export interface DrivesConfig {
  readonly arguments?: readonly string[];
  readonly sharedDisks?: readonly string[];
  readonly disks?: Readonly<Record<string, DiskOptions>>;
}

const DEFAULTS: DiskOptions = { durability: 'strict', preallocate: false };
/** What stands for a file of a host by itself. */
const FILE_DRIVERS: ReadonlySet<string> = new Set(['file', 'host_device']);
const PROTOCOL = /^[A-Za-z0-9+.-]+:/;

type Options = ReadonlyMap<string, string>;

interface Found {
  readonly id: string;
  readonly name: string;
  readonly file: string;
  readonly format: string;
}

/** In QEMU's order: drives, and then nodes, as their devices are. @throws HypervisorError BAD_CONFIGURATION */
export function replicatedDisks(config: DrivesConfig): LocalDisk[] {
  const { arguments: words = [], sharedDisks = [], disks = {} } = config;
  const found = [...drivesIn(words), ...nodesIn(words)].filter(
    ({ id, name }) => !sharedDisks.includes(id) && !sharedDisks.includes(name),
  );
  const names = new Set(found.flatMap(({ id, name }) => [id, name]));
  const nobody = Object.keys(disks).find((name) => !names.has(name));
  if (nobody !== undefined) {
    throw badConfiguration(
      `there is no disk ${nobody} that could be replicated: no -drive has this id and a file and a format, ` +
        'and no -blockdev this node-name and a file',
      { key: 'disks', value: nobody },
    );
  }
  const given = (name: string) => (Object.hasOwn(disks, name) ? disks[name] : undefined);
  const files = new Set<string>();
  return found.map(({ id, name, file, format }) => {
    const absolute = isAbsolute(file) ? file : resolve(file);
    if (files.has(absolute)) {
      throw badConfiguration(`two disks are in the file ${absolute}`, { key: 'arguments', value: absolute });
    }
    files.add(absolute);
    return { id, name, file: absolute, format, options: given(name) ?? given(id) ?? DEFAULTS };
  });
}

/**
 * The arguments, such that QEMU never opens the file of a replicated disk anew: of a -drive it does, unless told otherwise,
 * when a mirror ends, and (7.2) aborts, and its guest with it, if it cannot: a file that was renamed, or made read-only.
 */
export function withSteadyFiles(config: DrivesConfig): string[] {
  const words = config.arguments ?? [];
  const ids = new Set(replicatedDisks(config).map(({ name }) => name));
  return words.map((word, at) => {
    if (!isOption(words[at - 1], 'drive')) return word;
    const options = optionsIn(word);
    const isOurs = ids.has(options.get('id') ?? '') && !options.has('auto-read-only');
    return isOurs ? `${word},auto-read-only=off` : word;
  });
}

function drivesIn(words: readonly string[]): Found[] {
  return valuesOf(words, 'drive').flatMap((value) => {
    const options = optionsIn(value);
    const id = options.get('id');
    const file = options.get('file') ?? options.get('file.filename');
    const format = options.get('format') ?? options.get('driver');
    const isTemporary = isOn(options.get('snapshot'));
    const isFixed = options.get('media') === 'cdrom' || options.get('if') === 'pflash';
    if (id === undefined || isReadOnly(options) || isTemporary || isFixed) return [];
    if (file === undefined || format === undefined || PROTOCOL.test(file)) return [];
    return [{ id, name: id, file, format }];
  });
}

function nodesIn(words: readonly string[]): Found[] {
  const nodes = new Map<string, Options>();
  for (const value of valuesOf(words, 'blockdev')) {
    const options = optionsIn(value);
    nodes.set(options.get('node-name') ?? '', options);
  }
  const all = [...nodes];
  const used = new Set(all.flatMap(([, options]) => [options.get('file'), options.get('backing')]));
  const devices = valuesOf(words, 'device').map(optionsIn);
  const placeOf = (name: string) => devices.findIndex((each) => each.get('drive') === name);
  // In the order of their devices, as QEMU lists them.
  const ordered = all.sort(([one], [other]) => placeOf(one) - placeOf(other));
  return ordered.flatMap(([name, options]) => {
    if (name === '' || used.has(name) || isReadOnly(options)) return [];
    const driver = options.get('driver') ?? '';
    const file = fileOf(options, nodes);
    if (file === null) return [];
    const device = devices[placeOf(name)];
    const format = FILE_DRIVERS.has(driver) ? 'raw' : driver;
    return [{ id: device?.get('id') ?? name, name, file, format }];
  });
}

/** Null: it is no file of this host. */
function fileOf(options: Options, nodes: ReadonlyMap<string, Options>): string | null {
  if (FILE_DRIVERS.has(options.get('driver') ?? '')) return options.get('filename') ?? null;
  if (FILE_DRIVERS.has(options.get('file.driver') ?? '')) return options.get('file.filename') ?? null;
  const below = nodes.get(fileNodeOf(options) ?? '');
  return below && FILE_DRIVERS.has(below.get('driver') ?? '') ? (below.get('filename') ?? null) : null;
}

/** The name of the node that a node's file is; null: it is none of its own. */
export function fileNodeOf(options: Options): string | null {
  return options.get('file') ?? null;
}

function isReadOnly(options: Options): boolean {
  return isOn(options.get('read-only')) || isOn(options.get('readonly'));
}

function isOn(value: string | undefined): boolean {
  return value === 'on' || value === 'true' || value === 'yes';
}

/** What follows -OPTION, or --OPTION, each time. */
function valuesOf(words: readonly string[], option: string): string[] {
  return words.flatMap((word, at) => {
    const value = words[at + 1];
    return value !== undefined && isOption(word, option) ? [value] : [];
  });
}

export function isOption(word: string | undefined, option: string): boolean {
  return word === `-${option}` || word === `--${option}`;
}

/** Of both forms that QEMU takes. A comma in a value is written twice; what lies within another has dots in its name. */
export function optionsIn(value: string): Options {
  const options = new Map<string, string>();
  if (value.startsWith('{')) {
    flatten(parsed(value), '', options);
    return options;
  }
  for (const setting of split(value)) {
    const at = setting.indexOf('=');
    if (at > 0) options.set(setting.slice(0, at), setting.slice(at + 1));
    else if (setting !== '') options.set(setting, 'on');
  }
  return options;
}

/** At single commas; of two the first stands for itself. */
function split(value: string): string[] {
  const settings: string[] = [''];
  for (let at = 0; at < value.length; at++) {
    const isSingle = value[at] === ',' && value[at + 1] !== ',';
    if (value[at] === ',' && !isSingle) at++;
    if (isSingle) settings.push('');
    else settings[settings.length - 1] = valueAt(settings, settings.length - 1) + valueAt(value, at);
  }
  return settings;
}

/** @throws HypervisorError BAD_CONFIGURATION */
function parsed(value: string): unknown {
  try {
    return JSON.parse(value) as unknown;
  } catch (error) {
    throw badConfiguration('an argument that begins with { is not JSON', { key: 'arguments', value }, error);
  }
}

function flatten(value: unknown, name: string, into: Map<string, string>): void {
  if (!isObject(value)) {
    into.set(name, String(value));
    return;
  }
  for (const [key, inner] of Object.entries(value))
    flatten(inner, name === '' ? key : `${name}.${key}`, into);
}
