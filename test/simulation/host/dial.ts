// One attempt of a standby to reach a host (channel/dial/dialer.ts): a link, or a code.
//
//   dead host, or cut ─▶ UNREACHABLE, when the time is over      nobody listens ─▶ REFUSED
//   listens: hello ─▶ welcome, or a refusal; or no answer in time ─▶ HANDSHAKE_TIMEOUT. What was said is read, if late.

import type { Hello } from '../../../src/channel/contract.js';
import { Connection, type End, type Greeting } from '../world/connection.js';
import type { AgentPorts } from './cluster.js';

export interface DialResult {
  readonly linked: (end: End, welcome: Greeting) => void;
  readonly failed: (code: string) => void;
}

export class Dial {
  readonly #agent: AgentPorts;
  readonly #name: string;
  readonly #hello: Hello;
  readonly #result: DialResult;
  #end: End | null = null;
  #over = false;

  constructor(agent: AgentPorts, name: string, hello: Hello, result: DialResult) {
    this.#agent = agent;
    this.#name = name;
    this.#hello = hello;
    this.#result = result;
    const { cluster, process } = agent;
    const { network, clock, params } = cluster;
    process.after(params.connectTimeoutMs, () => this.#fail(this.#end ? 'HANDSHAKE_TIMEOUT' : 'UNREACHABLE'));
    clock.after(network.takesMs(network.way(agent.host.name, name)), () => this.#arrive());
  }

  /** A link that it brings nevertheless is closed. */
  abort(): void {
    this.#over = true;
    this.#hangUp();
  }

  /** At the other host's kernel. */
  #arrive(): void {
    const { cluster, process, host } = this.#agent;
    const { network, clock, hosts } = cluster;
    const back = network.way(this.#name, host.name);
    const other = hosts.find(({ name }) => name === this.#name);
    if (!process.alive || !other?.isUp || back.cuts > 0) return;
    if (network.way(host.name, this.#name).cuts > 0) return;
    const { agent } = other;
    if (!agent?.process.alive) {
      process.after(network.takesMs(back), () => this.#fail('REFUSED'));
      return;
    }
    const { dialler, listener } = new Connection(clock, network, this.#agent.seat, agent.seat);
    listener.receive = (message) => agent.receive(listener, message);
    process.after(network.takesMs(back), () => this.#connected(dialler));
  }

  #connected(end: End): void {
    this.#end = end;
    if (this.#over) {
      this.#hangUp();
      return;
    }
    end.receive = (message) => {
      if (message.kind === 'welcome') this.#welcome(end, message.welcome);
      else if (message.kind === 'error') this.#fail(message.code);
      else if (message.kind === 'closed') this.#fail('LINK_CLOSED');
    };
    end.send({ kind: 'hello', hello: this.#hello });
  }

  #welcome(end: End, welcome: Greeting): void {
    if (this.#over) return;
    this.#over = true;
    this.#result.linked(end, welcome);
  }

  #fail(code: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#hangUp();
    this.#result.failed(code);
  }

  #hangUp(): void {
    this.#end?.close();
  }
}
