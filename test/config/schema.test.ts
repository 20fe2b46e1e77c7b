// What a configuration may say and what comes out; and that whatever else is given ends in a ConfigError that names
// the key, the value and what was expected.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { ConfigError } from '../../src/config/error.js';
import { loadPrimaryConfig, parsePrimaryConfig, parseSecondaryConfig } from '../../src/config/load.js';
import { errorOf, problems } from './refused.js';

const hypervisor = { kind: 'embedded' };
const qemu = { kind: 'qemu' };
const domain = { name: 'web', hypervisor };
const standby = { ...domain, primary: 'ws://localhost:7300' };
const primary = (changes: object) => ({ domains: [{ ...domain, ...changes }] });
const secondary = (changes: object) => ({ domains: [{ ...standby, ...changes }] });

async function withFile<Result>(content: string, use: (file: string) => Promise<Result>): Promise<Result> {
  const directory = await mkdtemp(path.join(os.tmpdir(), 'romulus-config-'));
  try {
    const file = path.join(directory, 'primary.yaml');
    await writeFile(file, content);
    return await use(file);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function loadError(content: string): Promise<ConfigError> {
  return withFile(content, async (file) => {
    try {
      await loadPrimaryConfig(file);
    } catch (thrown) {
      if (thrown instanceof ConfigError) return thrown;
      throw thrown;
    }
    throw new Error('this file should have been refused');
  });
}

describe('config: what is refused', () => {
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
      'disks that both hosts see, and output that passes unprotected',
      {
        hypervisor: { ...qemu, sharedDisks: ['d'], fence: 'external' },
        output: { whenUnprotected: 'pass' },
      },
      ["domains[0].output.whenUnprotected: 'pass'"],
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
  it('disks that both hosts see without a fence, on either side, and why', () => {
    const changes = { hypervisor: { ...qemu, sharedDisks: ['d'] } };
    for (const parse of [
      () => parsePrimaryConfig(primary(changes)),
      () => parseSecondaryConfig(secondary(changes)),
    ]) {
      expect(errorOf(parse).message).to.match(
        /fence: missing, expected "fence: external".* both would write/,
      );
    }
  });
  for (const [what, changes, expected] of cases) {
    it(what, () => expect(problems(() => parsePrimaryConfig(primary(changes)))).to.deep.equal(expected));
  }

  it('redial times that cross, a name twice, a URL of another kind', () => {
    expect(
      problems(() => parseSecondaryConfig(secondary({ failover: { redialMinMs: 100, redialMaxMs: 99 } }))),
    ).to.deep.equal(['domains[0].failover.redialMaxMs: 99']);
    expect(problems(() => parsePrimaryConfig({ domains: [domain, domain] }))).to.deep.equal([
      "domains[1].name: 'web'",
    ]);
    expect(problems(() => parseSecondaryConfig(secondary({ primary: 'http://localhost' })))).to.deep.equal([
      "domains[0].primary: 'http://localhost'",
    ]);
    expect(
      problems(() => parsePrimaryConfig({ ...primary({}), hooks: { webhook: { url: 'ftp://x' } } })),
    ).to.deep.equal(["hooks.webhook.url: 'ftp://x'"]);
  });

  it('tells all problems at once, one line each, with a hint for a misspelt key', () => {
    const error = errorOf(() =>
      parsePrimaryConfig({
        listen: { prot: 7300 },
        log: { level: 'loud' },
        domains: [{ ...domain, checkpoint: { interval: 5, slab: 1 }, heartbeats: {} }],
      }),
    );
    expect(error.code).to.equal('INVALID');
    expect(error.facts).to.deep.equal({ file: null, problems: 5, path: 'listen.prot' });
    expect(error.message.split('\n')).to.deep.equal([
      'the configuration is not usable:',
      '  listen.prot: 7300 given, expected port (did you mean that? there is no such key)',
      "  log.level: 'loud' given, expected one of trace, debug, info, warn, error, fatal, silent",
      '  domains[0].checkpoint.slab: 1 given, expected a size from 1MiB to 4GiB (such as 1MiB; B, KiB, MiB, GiB)',
      '  domains[0].checkpoint.interval: 5 given, expected intervalMs (did you mean that? there is no such key)',
      '  domains[0].heartbeats: {} given, expected heartbeat (did you mean that? there is no such key)',
    ]);
  });

  it('files that are no YAML, that use too much of it, or that are not there', async () => {
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
    expect((await loadError('')).problems).to.have.length(1);
    expect((await loadError(`# ${'x'.repeat(2 ** 20)}`)).code).to.equal('TOO_LARGE');
    const missing = await loadPrimaryConfig('/nonexistent/primary.yaml').catch((thrown: unknown) => thrown);
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
      fence: oneOf('external', anything),
    },
    { requiredKeys: ['kind'] },
  );
  const nearlyDomain = fc.record(
    {
      name: oneOf('web', fc.string()),
      primary: oneOf('ws://localhost:1', anything),
      hypervisor: oneOf(hypervisor, fc.oneof(anything, nearlyQemu)),
      checkpoint: fc.oneof(
        fc.record({ intervalMs: fc.integer(), slab: fc.string() }, { requiredKeys: [] }),
        anything,
      ),
      heartbeat: fc.record({ intervalMs: fc.double(), timeoutMs: fc.integer() }, { requiredKeys: [] }),
      output: oneOf({}, fc.record({ console: anything, limit: anything }, { requiredKeys: [] })),
      failover: oneOf({}, anything),
    },
    { requiredKeys: [] },
  );
  const nearlyConfig = fc.record(
    {
      domains: fc.array(nearlyDomain, { maxLength: 3 }),
      http: oneOf(false, anything),
      listen: oneOf({}, anything),
      hooks: anything,
    },
    { requiredKeys: ['domains'] },
  );

  it('a long list in the wrong place is shown in one line', () => {
    const { message } = errorOf(() => parsePrimaryConfig({ domains: [{ name: ['', 1, 2, 3, 4, 5, 6] }] }));
    expect(message).to.include("domains[0].name: [ '', 1, 2, 3, 4, 5, 6 ] given");
  });

  for (const [side, parse] of [
    ['primary', parsePrimaryConfig],
    ['secondary', parseSecondaryConfig],
  ] as const) {
    it(`${side}: a configuration or a ConfigError, nothing else`, () => {
      fc.assert(
        fc.property(fc.oneof(anything, nearlyConfig), (given) => {
          try {
            expect(parse(given).domains).to.not.be.empty;
          } catch (thrown) {
            expect(thrown).to.be.instanceOf(ConfigError);
            if (!(thrown instanceof ConfigError)) return;
            expect(thrown.problems).to.not.be.empty;
            expect(thrown.message.split('\n')).to.have.length(thrown.problems.length + 1);
          }
        }),
        { numRuns: 250 },
      );
    });
  }
});
