/** Server-Sent Events read with fetch, so that the token stands in a header. After the WHATWG HTML standard, section 9.2. */

/** One dispatched block. */
export interface SseBlock {
  /** The value of the last `id:` so far. */
  readonly id: string;
  /** `message` where the block names none. */
  readonly event: string;
  /** Null for a block without data: a heartbeat that only moved the id. */
  readonly data: string | null;
}

/** Splits a stream of text, in whatever pieces it comes, into blocks. */
export class SseParser {
  private rest = '';
  private id = '';
  private event = '';
  private data: string[] = [];
  private hasFields = false;

  /** The blocks that this piece completes. */
  push(piece: string): SseBlock[] {
    const blocks: SseBlock[] = [];
    const text = this.rest + piece;
    let from = 0;
    for (;;) {
      const end = lineEnd(text, from);
      if (end === undefined) break;
      this.line(text.slice(from, end.at), blocks);
      from = end.next;
    }
    this.rest = text.slice(from);
    return blocks;
  }

  private line(line: string, blocks: SseBlock[]): void {
    if (line === '') {
      if (this.hasFields) blocks.push({ id: this.id, event: this.event || 'message', data: this.data.length > 0 ? this.data.join('\n') : null });
      this.event = '';
      this.data = [];
      this.hasFields = false;
      return;
    }
    if (line.startsWith(':')) return;
    const colon = line.indexOf(':');
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'id') this.id = value;
    else if (field === 'event') this.event = value;
    else if (field === 'data') this.data.push(value);
    else return;
    this.hasFields = true;
  }
}

/** The next line's end; a lone carriage return at the end of the text may be half of one. */
function lineEnd(text: string, from: number): { at: number; next: number } | undefined {
  for (let at = from; at < text.length; at += 1) {
    if (text[at] === '\n') return { at, next: at + 1 };
    if (text[at] === '\r') {
      if (at + 1 === text.length) return undefined;
      return { at, next: text[at + 1] === '\n' ? at + 2 : at + 1 };
    }
  }
  return undefined;
}
