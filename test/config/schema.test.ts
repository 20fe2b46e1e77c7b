// What a domain's section, or a file, is refused for: a ConfigError names the key, the value and what was expected.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { ConfigError } from '../../src/config/error.js';
import { loadCluster, parseCluster } from '../../src/config/cluster.js';
import { errorOf, problems } from './refused.js';

const hypervisor = { kind: 'embedded' };
const qemu = { kind: 'qemu' };
const hosts = { alpha: { address: '127.0.0.1', port: 1 }, beta: { address: '127.0.0.1', port: 2 } };
const domain = { name: 'web', hosts: ['alpha'], hypervisor };
const cluster = (changes: object, others: object = {}) => ({
  witness: { kind: 'none' },
  hosts,
  domains: [{ ...domain, ...changes }],
  ...others,
});
const parse = (given: unknown) => parseCluster(given, 'alpha');

async function withFile<Result>(content: string, use: (file: string) => Promise<Result>): Promise<Result> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'romulus-config-'));
  try {
    const file = path.join(directory, 'cluster.yaml');
    await writeFile(file, content);
    return await use(file);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function loadError(content: string): Promise<ConfigError> {
  return withFile(content, async (file) => {
    try {
      await loadCluster(file, 'alpha');
    } catch (thrown) {
      if (thrown instanceof ConfigError) return thrown;
      throw thrown;
    }
    throw new Error('this file should have been refused');
  });
}

describe('config: what a domain is refused for', () => {
  const cases: readonly (readonly [string, object, readonly string[]])[] = [
    ['a size in decimal units', { checkpoint: { slab: '64MB' } }, ["domains[0].checkpoint.slab: '64MB'"]],
    ['an interval of 0', { checkpoint: { intervalMs: 0 } }, ['domains[0].checkpoint.intervalMs: 0']],
    [
      'an interval over a minute',
      { checkpoint: { intervalMs: 60_001 } },
      ['domains[0].checkpoint.intervalMs: 60001'],
    ],
    ['half a millisecond', { checkpoint: { intervalMs: 0.5 } }, ['domains[0].checkpoint.intervalMs: 0.5']],
    ['a number as text', { checkpoint: { intervalMs: '50' } }, ["domains[0].checkpoint.intervalMs: '50'"]],
    [
      'memory that is no power of two',
      { hypervisor: { ...hypervisor, memory: '96MiB' } },
      ["domains[0].hypervisor.memory: '96MiB'"],
    ],
    [
      'memory beyond 1 GiB',
      { hypervisor: { ...hypervisor, memory: '2GiB' } },
      ["domains[0].hypervisor.memory: '2GiB'"],
    ],
    [
      'a working set that does not fit',
      { hypervisor: { ...hypervisor, memory: '4MiB', guest: { workingSetPages: 512 } } },
      ['domains[0].hypervisor.guest.workingSetPages: 512'],
    ],
    [
      'more dirty pages than the working set has',
      { hypervisor: { ...hypervisor, guest: { dirtyPages: 1025 } } },
      ['domains[0].hypervisor.guest.dirtyPages: 1025'],
    ],
    [
      'a disk of too many blocks',
      { hypervisor: { ...hypervisor, guest: { diskBlocks: 65_537 } } },
      ['domains[0].hypervisor.guest.diskBlocks: 65537'],
    ],
    [
      'guest and image at once',
      { hypervisor: { ...hypervisor, guest: {}, image: { multiboot: 'm' } } },
      ["domains[0].hypervisor.image: { multiboot: 'm' }"],
    ],
    [
      'an image with nothing to boot',
      { hypervisor: { ...hypervisor, image: { bios: 'b' } } },
      ["domains[0].hypervisor.image: { bios: 'b' }"],
    ],
    [
      'an image that needs a BIOS',
      { hypervisor: { ...hypervisor, image: { disk: 'd' } } },
      ['domains[0].hypervisor.image.bios: missing'],
    ],
    [
      'an initrd in a small memory',
      { hypervisor: { ...hypervisor, memory: '32MiB', image: { bios: 'b', kernel: 'k', initrd: 'i' } } },
      ["domains[0].hypervisor.memory: '32MiB'"],
    ],
    [
      'a QEMU with memory in half a mebibyte',
      { hypervisor: { ...qemu, memory: '1536KiB' } },
      ["domains[0].hypervisor.memory: '1536KiB'"],
    ],
    [
      'a QEMU that is started here and runs already',
      { hypervisor: { ...qemu, qmp: 'q', machine: 'q35', dirty: 'auto' } },
      ["domains[0].hypervisor.machine: 'q35'", "domains[0].hypervisor.dirty: 'auto'"],
    ],
    [
      'the serial port of a QEMU that is started here',
      { hypervisor: { ...qemu, serial: 's' } },
      ["domains[0].hypervisor.serial: 's'"],
    ],
    [
      'a network device that is plugged into nothing, or into two things',
      { hypervisor: { ...qemu, network: [{ id: 'a' }, { id: 'b', tap: 't', user: 'u' }] } },
      [
        "domains[0].hypervisor.network[0]: { id: 'a' }",
        "domains[0].hypervisor.network[1]: { id: 'b', tap: 't', user: 'u' }",
      ],
    ],
    [
      'a network device of a running QEMU with more than an id',
      { hypervisor: { ...qemu, qmp: 'q', network: [{ id: 'a', tap: 't' }] } },
      ["domains[0].hypervisor.network[0]: { id: 'a', tap: 't' }"],
    ],
    [
      'network devices of one name',
      {
        hypervisor: {
          ...qemu,
          network: [
            { id: 'a', tap: 't' },
            { id: 'a', tap: 'u' },
          ],
        },
      },
      ["domains[0].hypervisor.network[1].id: 'a'"],
    ],
    [
      'a network address that is none, and an id with a comma',
      { hypervisor: { ...qemu, network: [{ id: 'a,b', tap: 't', mac: '52:54:00:00:00:0g' }] } },
      [
        "domains[0].hypervisor.network[0].id: 'a,b'",
        "domains[0].hypervisor.network[0].mac: '52:54:00:00:00:0g'",
      ],
    ],
    [
      'disks that both hosts see without a fence',
      { hypervisor: { ...qemu, sharedDisks: ['d'] } },
      ['domains[0].hypervisor.fence: missing'],
    ],
    [
      'the same of a QEMU that runs already, and a fence of another kind',
      { hypervisor: { ...qemu, qmp: 'q', sharedDisks: ['d'], fence: 'none' } },
      ["domains[0].hypervisor.fence: 'none'"],
    ],
    [
      'a disk that is shared and replicated',
      { hypervisor: { ...qemu, sharedDisks: ['d'], fence: 'external', disks: { d: {} } } },
      ['domains[0].hypervisor.disks.d.mode: missing'],
    ],
    [
      'a disk that is shared, by the other way to say so, without a fence',
      { hypervisor: { ...qemu, disks: { d: { mode: 'shared' } } } },
      ['domains[0].hypervisor.fence: missing'],
    ],
    [
      'the size of a disk that is shared, and half a sector',
      { hypervisor: { ...qemu, disks: { d: { mode: 'shared', size: '1GiB' }, e: { size: 2 ** 30 + 256 } } } },
      ["domains[0].hypervisor.disks.d.size: '1GiB'", 'domains[0].hypervisor.disks.e.size: 1073742080'],
    ],
    [
      'the size of a disk that is there',
      { hypervisor: { ...qemu, qmp: 'q', disks: { d: { size: '1GiB' } } } },
      ["domains[0].hypervisor.disks.d: { size: '1GiB' }"],
    ],
    ['an unknown hypervisor', { hypervisor: { kind: 'vmware' } }, ["domains[0].hypervisor.kind: 'vmware'"]],
    ['no hypervisor', { hypervisor: undefined }, ['domains[0].hypervisor: missing']],
    ['an upper-case name', { name: 'Web' }, ["domains[0].name: 'Web'"]],
    ['a name of 64 letters', { name: 'a'.repeat(64) }, [`domains[0].name: '${'a'.repeat(64)}'`]],
    [
      'a heartbeat without slack',
      { heartbeat: { intervalMs: 100, timeoutMs: 199 } },
      ['domains[0].heartbeat.timeoutMs: 199'],
    ],
    ['a path with a zero octet', { output: { tap: 'a\0b' } }, ["domains[0].output.tap: 'a\\x00b'"]],
    ['an unknown console', { output: { console: 'stdrr' } }, ["domains[0].output.console: 'stdrr'"]],
    [
      'a console section with another key',
      { output: { console: { path: 'x' } } },
      ['domains[0].output.console.file: missing', "domains[0].output.console.path: 'x'"],
    ],
  ];
  it('disks that both hosts see without a fence, and why', () => {
    const changes = { hypervisor: { ...qemu, sharedDisks: ['d'] } };
    expect(errorOf(() => parse(cluster(changes))).message).to.match(
      /fence: missing, expected "fence: external".* both would write/,
    );
  });
  for (const [what, changes, expected] of cases) {
    it(what, () => expect(problems(() => parse(cluster(changes)))).to.deep.equal(expected));
  }

  it('redial times that cross', () => {
    const changes = { failover: { redialMinMs: 100, redialMaxMs: 99 } };
    expect(problems(() => parse(cluster(changes)))).to.deep.equal(['domains[0].failover.redialMaxMs: 99']);
  });

  it('tells all problems at once, one line each, with a hint for a misspelt key', () => {
    const error = errorOf(() =>
      parse(
        cluster(
          { checkpoint: { interval: 5, slab: 1 } },
          { log: { level: 'loud' }, hooks: { webhook: { url: 'ftp://x' } } },
        ),
      ),
    );
    expect(error.code).to.equal('INVALID');
    expect(error.facts).to.deep.equal({ file: null, problems: 4, path: 'log.level' });
    expect(error.message.split('\n')).to.deep.equal([
      'the configuration is not usable:',
      "  log.level: 'loud' given, expected one of trace, debug, info, warn, error, fatal, silent",
      "  hooks.webhook.url: 'ftp://x' given, expected an address that begins with http:// or https://",
      '  domains[0].checkpoint.slab: 1 given, expected a size from 1MiB to 4GiB (such as 1MiB; B, KiB, MiB, GiB)',
      '  domains[0].checkpoint.interval: 5 given, expected intervalMs (did you mean that? there is no such key)',
    ]);
  });

  it('a long list in the wrong place is shown in one line', () => {
    const { message } = errorOf(() => parse(cluster({ name: ['', 1, 2, 3, 4, 5, 6] })));
    expect(message).to.include("domains[0].name: [ '', 1, 2, 3, 4, 5, 6 ] given");
  });
});

describe('config: files that are refused', () => {
  it('no YAML, too much of it, or not there', async () => {
    expect((await loadError('domains: [')).code).to.equal('BAD_YAML');
    expect((await loadError('http: false\nhttp: false')).problems[0]?.path).to.equal('line 2, column 1');
    expect((await loadError('a: !unknown x')).code).to.equal('BAD_YAML');
    expect((await loadError('a: 1\n---\nb: 2')).code).to.equal('BAD_YAML');
    const levels = Array.from(
      { length: 9 },
      (_, level) => `a${level + 1}: &a${level + 1} [${`*a${level},`.repeat(9)}]`,
    );
    expect((await loadError(['a0: &a0 [x]', ...levels].join('\n'))).code).to.equal('BAD_YAML');
    expect((await loadError('&a domains: [*a]')).code).to.equal('INVALID');
    expect((await loadError('')).code).to.equal('INVALID');
    expect((await loadError(`# ${'x'.repeat(2 ** 20)}`)).code).to.equal('TOO_LARGE');
    const missing = await loadCluster('/nonexistent/cluster.yaml').catch((thrown: unknown) => thrown);
    expect(missing).to.be.instanceOf(ConfigError).with.property('code', 'UNREADABLE');
  });
});

describe('config: anything at all', () => {
  const oneOf = (valid: unknown, other: fc.Arbitrary<unknown>) =>
    fc.oneof({ weight: 3, arbitrary: fc.constant(valid) }, { weight: 1, arbitrary: other });
  const anything = fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    withSparseArray: true,
  });
  const nearlyQemu = fc.record(
    {
      kind: fc.constant('qemu'),
      qmp: fc.string(),
      memory: oneOf('64MiB', anything),
      arguments: oneOf(['-device', 'x'], anything),
      network: oneOf([{ id: 'a', tap: 't' }], fc.oneof(anything, fc.array(anything))),
      sharedDisks: oneOf([], fc.oneof(anything, fc.array(fc.string()))),
      disks: oneOf({ d: {} }, fc.oneof(anything, fc.dictionary(fc.string(), anything))),
      fence: oneOf('external', anything),
    },
    { requiredKeys: ['kind'] },
  );
  const nearlyDomain = fc.record(
    {
      name: oneOf('web', fc.string()),
      hosts: fc.constant(['alpha']),
      hypervisor: oneOf(hypervisor, fc.oneof(anything, nearlyQemu)),
      checkpoint: fc.oneof(
        fc.record({ intervalMs: fc.integer(), slab: fc.string() }, { requiredKeys: [] }),
        anything,
      ),
      heartbeat: fc.record({ intervalMs: fc.double(), timeoutMs: fc.integer() }, { requiredKeys: [] }),
      output: oneOf({}, fc.record({ console: anything, limit: anything }, { requiredKeys: [] })),
      failover: oneOf({}, anything),
    },
    { requiredKeys: ['hosts'] },
  );

  it('in the place of a domain is a configuration or a ConfigError, nothing else', () => {
    let accepted = 0;
    fc.assert(
      fc.property(fc.array(nearlyDomain, { minLength: 1, maxLength: 3, size: 'xsmall' }), (domains) => {
        try {
          accepted += parse({ ...cluster({}), domains }).domains.length;
        } catch (thrown) {
          expect(thrown).to.be.instanceOf(ConfigError);
          if (!(thrown instanceof ConfigError)) return;
          expect(thrown.problems).to.not.be.empty;
          expect(thrown.message.split('\n')).to.have.length(thrown.problems.length + 1);
        }
      }),
      { numRuns: 1500 },
    );
    expect(accepted).to.be.greaterThan(0);
  });
});
