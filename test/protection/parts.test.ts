// The two parts of a domain on real links, with memory domains: whom a standby dials, and what it is granted.

import { expect } from 'chai';
import { Subject } from 'rxjs';
import { ChannelError, type PrimaryLink } from '../../src/channel/contract.js';
import { defaultTokenFile, readToken } from '../../src/channel/credentials/token-file.js';
import { PrimaryListener } from '../../src/channel/listen/listener.js';
import { WitnessError } from '../../src/failover/error.js';
import type { Register, RegisterWitness } from '../../src/failover/register.js';
import { settle } from '../../src/failover/settle.js';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { OwnerPart, StandbyPart, type Part, type PartOptions } from '../../src/protection/parts.js';
import type { RoleEvent } from '../../src/protection/role-state.js';
import { MemoryDomain } from '../memory/domain.js';
import { log } from '../service/world.js';
import { Cleanup } from '../support/cleanup.js';
import { primaryDomain, standbyDomain } from '../support/domains.js';
import { until } from '../support/until.js';

const PAGES = 16;
const DOMAIN = 'web';
const born: Register = {
  ...{ generation: 1, mode: 'alone', owner: 'north', standby: null, stream: null, token: 'boot' },
};

/** The witness is out of reach. */
function unanswered(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) =>
    signal.addEventListener('abort', () => reject(new WitnessError('ABORTED', 'given up'))),
  );
}

interface Listening {
  readonly listener: PrimaryListener;
  readonly url: string;
}

describe('protection/parts', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  const section = {
    ...{ name: DOMAIN, output: { console: 'none' } },
    ...{ checkpoint: { intervalMs: 10, slab: '2MiB' }, heartbeat: { intervalMs: 50, timeoutMs: 600 } },
    failover: { redialMinMs: 2, redialMaxMs: 5 },
  };

  async function listening(): Promise<Listening> {
    const listener = new PrimaryListener({
      ...{ host: '127.0.0.1', port: 0, heartbeatIntervalMs: 50, heartbeatTimeoutMs: 600 },
      token: readToken(defaultTokenFile()),
    });
    cleanup.add(() => listener.close());
    const { port } = await listener.listen();
    return { listener, url: `ws://127.0.0.1:${port}` };
  }

  /** Of the host `host`: what its parts share. */
  function optionsOf(
    host: string,
    others: ReadonlyMap<string, Listening>,
    changes: Partial<PartOptions> = {},
  ): PartOptions {
    const urls = [...others].map(([name, { url }]) => [name, { url }] as const);
    const witness = createMemoryWitness();
    const open = (empty: boolean) => new MemoryDomain({ name: DOMAIN, pages: PAGES, empty });
    return {
      ...{ host, hosts: [host, ...others.keys()], instance: host, shared: true, log },
      ...{ primary: primaryDomain(section), secondary: standbyDomain(section) },
      routes: new Map(urls),
      dependencies: {
        log,
        openSource: () => Promise.resolve(open(false)),
        openTarget: () => Promise.resolve(open(true)),
      },
      reports: {
        ...{ checkpoints$: new Subject(), transitions$: new Subject(), commits$: new Subject() },
        ...{ failover$: new Subject(), standbyLosses$: new Subject() },
      },
      offer: () => () => undefined,
      settle: (write, signal) => settle(witness, DOMAIN, write, { signal }),
      read: (signal) => witness.read(DOMAIN, signal),
      ...changes,
    };
  }

  function heard(part: Part): RoleEvent[] {
    const news: RoleEvent[] = [];
    part.news$.subscribe((event) => news.push(event));
    cleanup.add(() => part.stop());
    return news;
  }

  describe('a standby that holds nothing', () => {
    /** The hosts that were dialled, in turn; none of them has the domain. */
    async function dialled(owner: string | null, count: number): Promise<string[]> {
      const names = ['south', 'east', 'west'];
      const others = new Map<string, Listening>();
      for (const name of names) others.set(name, await listening());
      const options = optionsOf('north', others);
      const asked: string[] = [];
      const routes = new Map(
        [...options.routes].map(([name, { url }]) => {
          const way = {
            get url() {
              asked.push(name);
              return url;
            },
          };
          return [name, way] as const;
        }),
      );
      const part = new StandbyPart({ ...options, routes }, () => owner);
      const news = heard(part);
      await part.begin();
      await until('they are dialled', () => asked.length >= count);
      await until('they have answered', () => new Set(hostsOf(news)).size === names.length);
      await part.stop();
      // A host that answers that it has no such domain is known not to run it.
      expect(new Set(hostsOf(news))).to.deep.equal(new Set(names));
      return asked.slice(0, count);
    }

    const hostsOf = (news: readonly RoleEvent[]) =>
      news.flatMap((event) => (event.kind === 'not-here' ? [event.host] : []));

    it('dials one host after another, where nobody is known to own the domain', async () => {
      expect(await dialled(null, 6)).to.deep.equal(['south', 'east', 'west', 'south', 'east', 'west']);
      // Nor does it know the way to one that is no host of the domain.
      expect(await dialled('elsewhere', 4)).to.deep.equal(['south', 'east', 'west', 'south']);
    });

    it('dials the owner every other time, and the others in between: the register may be old', async () => {
      expect(await dialled('east', 8)).to.deep.equal([
        ...['east', 'south', 'east', 'east', 'east', 'west', 'east', 'south'],
      ]);
    });
  });

  /** The owner on north, whose register stands at `witness`; resolves to what cuts it off from everybody. */
  async function owning(witness: RegisterWitness, { listener }: Listening): Promise<() => void> {
    await settle(witness, DOMAIN, { expected: null, claim: born, token: born.token });
    let isCut = false;
    const over = new AbortController();
    let link: PrimaryLink | null = null;
    let withdraw: () => void = () => undefined;
    const options = optionsOf('north', new Map(), {
      settle: (write, signal) =>
        isCut ? unanswered(over.signal) : settle(witness, DOMAIN, write, { signal }),
      offer: (offer) => {
        const linked = (made: PrimaryLink) => offer.linked((link = made));
        return (withdraw = listener.offer({ ...offer, linked }));
      },
    });
    const owner = new OwnerPart(options, born);
    heard(owner);
    await owner.begin();
    return () => {
      isCut = true;
      cleanup.add(() => over.abort());
      withdraw();
      link?.destroy(new ChannelError('LINK_CLOSED', 'cut off'));
    };
  }

  /** As the part made them; the domain starts with the third attempt. */
  function startsLate(targets: MemoryDomain[]): PartOptions['dependencies']['openTarget'] {
    let starts = 0;
    return () => {
      const domain = new MemoryDomain({ name: DOMAIN, pages: PAGES, empty: true });
      domain.script = (call) => {
        if (call === 'start' && ++starts < 3) throw new HypervisorError('FAILED', 'not yet');
      };
      targets.push(domain);
      return Promise.resolve(domain);
    };
  }

  it('one that holds a checkpoint dials its owner only, and what was granted is its own, though it starts late', async () => {
    const [north, east] = [await listening(), await listening()];
    const witness = createMemoryWitness();
    const cut = await owning(witness, north);
    const others = new Map([...Object.entries({ east, north })]);
    const options = optionsOf('south', others, {
      settle: (write, signal) => settle(witness, DOMAIN, write, { signal }),
      read: (signal) => witness.read(DOMAIN, signal),
    });
    const targets: MemoryDomain[] = [];
    const dependencies = { ...options.dependencies, openTarget: startsLate(targets) };
    const standby = new StandbyPart({ ...options, dependencies }, () => 'north');
    const news = heard(standby);
    await standby.begin();
    await until('it protects', () => standby.status().epochCommitted > 1);
    expect(await witness.read(DOMAIN)).to.include({ mode: 'paired', owner: 'north', standby: 'south' });
    expect(news).to.deep.include({ kind: 'standby', busy: true });

    news.length = 0;
    cut();
    await until('it runs', () => news.some(({ kind }) => kind === 'took-over'));
    const register = await witness.read(DOMAIN);
    expect(register).to.include({ mode: 'alone', owner: 'south', generation: 3 });
    expect(news.at(-1)).to.deep.equal({ kind: 'took-over', register });
    expect(news).to.deep.include({ kind: 'not-here', host: 'north' });
    expect(news).to.not.deep.include({ kind: 'not-here', host: 'east' });
    expect(targets.filter(({ state }) => state === 'running')).to.have.length(1);
  });
});
